//! The newest events as they go out, so that many watchers of one event share its bytes.
//!
//! In: what an event is called and the form that a watcher wants. Out: bytes, made once a form.
//! Never: more than `limits::ENCODINGS_MAX` of them, or of `limits::ENCODINGS_BYTES_MAX` together; a form that looks
//! different to another watcher.

use super::{
    limits,
    negotiate::{Format, Shape},
};
use bytes::Bytes;
use limpet_objects::{resource::Resource, table::Include};
use limpet_store::Revision;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Everything on which the bytes of an event depend.
#[derive(Clone)]
pub struct Form {
    pub revision: Revision,
    /// ADDED, MODIFIED, DELETED.
    pub kind: &'static str,
    pub resource: Arc<Resource>,
    pub format: Format,
    pub shape: Shape,
    pub include: Include,
    /// Only the first Table of a watch carries the columns.
    pub with_columns: bool,
    /// Whether frames of protobuf begin with their length.
    pub with_length: bool,
}

impl PartialEq for Form {
    fn eq(&self, other: &Form) -> bool {
        self.revision == other.revision
            && self.kind == other.kind
            && Arc::ptr_eq(&self.resource, &other.resource)
            && (self.format, self.shape, self.include) == (other.format, other.shape, other.include)
            && (self.with_columns, self.with_length) == (other.with_columns, other.with_length)
    }
}

#[derive(Default)]
pub struct Encodings(Mutex<Newest>);

#[derive(Default)]
struct Newest {
    made: VecDeque<(Form, Bytes)>,
    bytes: usize,
}

impl Encodings {
    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of an event in this form; `make` is called when nobody had them made. Two that come at once may both
    /// make them.
    pub fn get(&self, form: Form, make: impl FnOnce() -> Bytes) -> Bytes {
        if let Some((_, bytes)) = self.newest().made.iter().rev().find(|(known, _)| *known == form) {
            return bytes.clone();
        }
        let bytes = make();
        let mut newest = self.newest();
        newest.bytes += bytes.len();
        newest.made.push_back((form, bytes.clone()));
        while newest.made.len() > limits::ENCODINGS_MAX || newest.bytes > limits::ENCODINGS_BYTES_MAX {
            let Some((_, old)) = newest.made.pop_front() else { break };
            newest.bytes -= old.len();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(revision: Revision, kind: &'static str) -> Form {
        let resource = limpet_objects::registry::registry().by_path("", "v1", "pods").unwrap();
        Form {
            revision,
            kind,
            resource: Arc::clone(resource),
            format: Format::Json,
            shape: Shape::Object,
            include: Include::Metadata,
            with_columns: false,
            with_length: true,
        }
    }

    #[test]
    fn one_encoding_for_all_watchers_of_an_event_and_form() {
        let encodings = Encodings::default();
        let first = encodings.get(form(7, "ADDED"), || Bytes::from_static(b"a"));
        let again = encodings.get(form(7, "ADDED"), || unreachable!("it is there"));
        assert_eq!(first, again);
        for other in [
            form(8, "ADDED"),
            form(7, "MODIFIED"),
            Form { format: Format::Protobuf, ..form(7, "ADDED") },
            Form { shape: Shape::Partial("v1"), ..form(7, "ADDED") },
            Form { with_length: false, ..form(7, "ADDED") },
            Form { with_columns: true, ..form(7, "ADDED") },
        ] {
            assert_eq!(encodings.get(other, || Bytes::from_static(b"b")), Bytes::from_static(b"b"));
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let encodings = Encodings::default();
        for revision in 0..3 * limits::ENCODINGS_MAX as u64 {
            encodings.get(form(revision, "ADDED"), || Bytes::from_static(b"x"));
        }
        assert_eq!(encodings.newest().made.len(), limits::ENCODINGS_MAX);
        encodings.get(form(9_999, "ADDED"), || vec![0; limits::ENCODINGS_BYTES_MAX + 1].into());
        let newest = encodings.newest();
        assert_eq!((newest.made.len(), newest.bytes), (0, 0), "too large to be kept");
    }
}
