//! LIST: a copy of the stored bytes of all selected objects.
//!
//! In: a target without a name, selectors, limit and token. Out: a list, a Table, or partial metadata, all pages
//! as of one revision; 410 when that revision has left the watch window. Never: parses objects when nothing asks for it.

use super::{
    get::not_of_the_future,
    options::{self, Continue, ListOptions, Match},
    rendered, shape,
};
use crate::api::{
    Reply, Target,
    dispatch::Call,
    negotiate::{self, Format, Shape},
    protobuf, reply,
    selection::Selection,
    target::unconverted,
};
use limpet_objects::status::Status;
use limpet_store::{Record, Revision};
use serde_json::{Value, json};

/// One page of a list.
pub struct Page {
    pub revision: Revision,
    pub records: Vec<Record>,
    pub next: Option<Continue>,
    /// Only known without selectors.
    pub remaining: Option<usize>,
}

pub fn answer(call: &Call, target: &Target) -> Result<Reply, Status> {
    let options = options::parse(&call.query, false)?;
    let selection = Selection::parse(&call.query, &target.resource, &target.name)?;
    let page = match page(call, target, &options, &selection)? {
        Ok(page) => page,
        Err(Expired) => return too_old(call, &options),
    };
    match (call.wanted.shape, call.wanted.format) {
        _ if shape::is_plain(call, target) => Ok(plain(call, target, page)),
        (Shape::Object, Format::Protobuf) => encoded(call, target, &page),
        (Shape::Table(version), _) if shape::can_be_rendered(call, target) => {
            rendered::table(call, target, &metadata(&page), page.records, version)
        }
        (Shape::Partial(version), _) if shape::can_be_rendered(call, target) => {
            Ok(rendered::metadata_only(call, &metadata(&page), page.records, version))
        }
        _ => shape::list(call, target, metadata(&page), parse(target, &page)?),
    }
}

/// The revision that a list must have has left the window.
pub struct Expired;

/// The records that belong on this page. All pages of a list show the state of the first page's revision.
pub fn page(
    call: &Call,
    target: &Target,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Result<Page, Expired>, Status> {
    let mut at = exact_revision(call, options)?;
    // A token of another life of the store.
    if at.is_some_and(|at| at > call.api.store.revision()) {
        return Ok(Err(Expired));
    }
    let (store, resource) = (&call.api.store, &target.resource);
    let mut after = options.start.as_ref().map(|s| (s.namespace.clone(), s.name.clone()));
    let mut records: Vec<Record> = Vec::new();
    let everything = selection.is_everything();
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    // Without a selector one look is enough; with one, further pieces are read until the page is full.
    let step = if everything || limit == usize::MAX { limit } else { limit.max(500) };
    let remaining = loop {
        let position = after.as_ref().map(|(ns, name)| (ns.as_str(), name.as_str()));
        let namespace = target.namespace();
        let listing = match at {
            None => store.list_from(&resource.storage, namespace, position, step),
            Some(at) => match store.list_at(&resource.storage, namespace, position, step, at) {
                Ok(listing) => listing,
                Err(_) => return Ok(Err(Expired)),
            },
        };
        at.get_or_insert(listing.revision);
        after = listing.records.last().map(|r| (r.key.namespace.clone(), r.key.name.clone()));
        let mut chosen = listing.records.into_iter().filter(|r| everything || selection.matches(resource, r));
        let mut full = false;
        for record in chosen.by_ref() {
            if records.len() == limit {
                full = true;
                break;
            }
            records.push(record);
        }
        if full || listing.remaining == 0 || after.is_none() {
            break if full { listing.remaining.max(1) } else { 0 };
        }
        if records.len() == limit {
            break listing.remaining;
        }
    };
    let revision = at.unwrap_or(0);
    let last = records.last().filter(|_| remaining > 0);
    let next =
        last.map(|r| Continue { revision, namespace: r.key.namespace.clone(), name: r.key.name.clone() });
    let remaining = (remaining > 0 && everything).then_some(remaining);
    Ok(Ok(Page { revision, records, next, remaining }))
}

/// The one revision whose state is wanted, when there is one.
fn exact_revision(call: &Call, options: &ListOptions) -> Result<Option<Revision>, Status> {
    if let Some(start) = &options.start {
        return Ok(Some(start.revision));
    }
    let Some(asked) = options.revision else { return Ok(None) };
    not_of_the_future(asked, call.api.store.revision())?;
    // Paging from a named revision means that one, as it always did.
    let exact = options.revision_match == Match::Exact
        || (options.revision_match == Match::Unset && options.limit > 0 && asked > 0);
    Ok(exact.then_some(asked))
}

/// 410; for a token with a fresh one, with which a client that can live with an inconsistent list goes on.
fn too_old(call: &Call, options: &ListOptions) -> Result<Reply, Status> {
    let Some(start) = &options.start else {
        return Err(Status::gone_expired("The resourceVersion for the provided list is too old."));
    };
    let status = Status::gone_expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let revision = call.api.store.revision();
    let mut value = status.to_value();
    value["metadata"]["continue"] = json!(Continue { revision, ..start.clone() }.encode());
    Ok(reply::value(status.code, &value, call.wanted))
}

fn metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        metadata["continue"] = json!(next.encode());
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    metadata
}

fn parse(target: &Target, page: &Page) -> Result<Vec<Value>, Status> {
    let read = |record: &Record| serde_json::from_slice(&record.bytes);
    let objects: Result<Vec<Value>, _> = page.records.iter().map(read).collect();
    let mut objects = objects.map_err(|e| Status::internal(format!("a stored object cannot be read: {e}")))?;
    let converted = target.resource.all_from_stored(&mut objects);
    converted.map_err(|why| unconverted(&target.resource, &why))?;
    Ok(objects)
}

/// In protobuf, object by object: the parsed objects are never there all together.
fn encoded(call: &Call, target: &Target, page: &Page) -> Result<Reply, Status> {
    let unreadable = |e| Status::internal(format!("a stored object cannot be read: {e}"));
    if target.resource.is_served_as_stored() {
        return encoded_by(call, target, page, |record| protobuf::Lean::read(&record.bytes).map_err(unreadable));
    }
    encoded_by(call, target, page, |record| target.parse(record))
}

fn encoded_by<'p, N: protobuf::Node>(
    call: &Call,
    target: &Target,
    page: &'p Page,
    read: impl Fn(&'p Record) -> Result<N, Status>,
) -> Result<Reply, Status> {
    let resource = &target.resource;
    let mut broken = None;
    let items = page.records.iter().map_while(|record| read(record).map_err(|status| broken = Some(status)).ok());
    let bytes = protobuf::list(&resource.api_version(), &resource.list_kind, &metadata(page), items);
    match (broken, bytes) {
        (Some(status), _) => Err(status),
        (None, Some(bytes)) => Ok(reply::encoded(200, bytes.into(), call.wanted)),
        (None, None) => Err(Status::not_acceptable(negotiate::ACCEPTED)),
    }
}

fn plain(call: &Call, target: &Target, page: Page) -> Reply {
    debug_assert_eq!(call.wanted.format, Format::Json);
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
        json!(target.resource.list_kind),
        json!(target.resource.api_version()),
        metadata(&page),
    );
    let size = head.len() + 4 + page.records.iter().map(|r| r.bytes.len() + 1).sum::<usize>();
    let items = page.records.into_iter().map(|record| record.bytes);
    reply::pieces(reply::listed(head, items), size, call.wanted)
}
