//! LIST: a copy of the stored bytes of all selected objects.
//!
//! In: a target without a name, selectors, limit and token. Out: a list, a Table, or partial metadata; 410
//! when a token's revision has left the watch window. Never: parses objects when nothing asks for it.

use super::{
    get::not_of_the_future,
    options::{self, Continue, ListOptions, Match},
    shape,
};
use crate::api::{
    Reply, Target,
    dispatch::Call,
    negotiate::{Format, Shape},
    object, reply,
    selection::Selection,
};
use bytes::Bytes;
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
    let selection = Selection::parse(&call.query, target.resource)?;
    if let Some(reply) = expired_token(call, &options) {
        return Ok(reply);
    }
    let page = page(call, target, &options, &selection)?;
    match call.wanted.shape {
        _ if shape::is_plain(call, target) => Ok(plain(call, target, page)),
        Shape::Table(version) => {
            let objects = parse(target, &page)?;
            let mut table = shape::tabulate(call, target, &objects, version)?;
            table["metadata"] = metadata(&page);
            Ok(reply::value(200, &table, call.wanted))
        }
        Shape::Object => {
            let items = parse(target, &page)?;
            let list = json!({
                "kind": target.resource.list_kind, "apiVersion": target.resource.api_version(),
                "metadata": metadata(&page), "items": items,
            });
            Ok(reply::value(200, &list, call.wanted))
        }
        Shape::Partial(version) => {
            let items: Vec<Value> =
                parse(target, &page)?.iter().map(|o| object::partial(o, version)).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata(&page), "items": items,
            });
            Ok(reply::value(200, &list, call.wanted))
        }
    }
}

/// The records that belong on this page.
pub fn page(
    call: &Call,
    target: &Target,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Page, Status> {
    check_revision(call, options)?;
    let (store, resource) = (&call.api.store, target.resource);
    let mut after = options.start.as_ref().map(|s| (s.namespace.clone(), s.name.clone()));
    let mut records: Vec<Record> = Vec::new();
    let everything = selection.is_everything();
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    // Without a selector one look is enough; with one, further pieces are read until the page is full.
    let step = if everything || limit == usize::MAX { limit } else { limit.max(500) };
    let mut first_revision = None;
    let remaining = loop {
        let position = after.as_ref().map(|(ns, name)| (ns.as_str(), name.as_str()));
        let listing = store.list_from(&resource.storage, target.namespace(), position, step);
        first_revision.get_or_insert(listing.revision);
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
    // Later pages keep the revision of the first: a watch from there repeats what changed between the pages.
    let revision = options.start.as_ref().map_or(first_revision.unwrap_or(0), |s| s.revision);
    let last = records.last().filter(|_| remaining > 0);
    let next =
        last.map(|r| Continue { revision, namespace: r.key.namespace.clone(), name: r.key.name.clone() });
    let remaining = (remaining > 0 && everything).then_some(remaining);
    Ok(Page { revision, records, next, remaining })
}

fn check_revision(call: &Call, options: &ListOptions) -> Result<(), Status> {
    let current = call.api.store.revision();
    if let Some(asked) = options.revision {
        not_of_the_future(asked, current)?;
        // Older states are not kept: only the newest can be had exactly.
        let exact = options.revision_match == Match::Exact
            || (options.revision_match == Match::Unset && options.limit > 0 && asked > 0);
        if exact && asked != current {
            return Err(Status::gone_expired("The resourceVersion for the provided list is too old."));
        }
    }
    Ok(())
}

/// 410 with a fresh token, with which a client that can live with an inconsistent list goes on.
fn expired_token(call: &Call, options: &ListOptions) -> Option<Reply> {
    let (current, oldest) = (call.api.store.revision(), call.api.store.oldest());
    let start = options.start.as_ref().filter(|s| s.revision < oldest || s.revision > current)?;
    let status = Status::gone_expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let mut value = status.to_value();
    value["metadata"]["continue"] = json!(Continue { revision: current, ..start.clone() }.encode());
    Some(reply::value(status.code, &value, call.wanted))
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
    page.records.iter().map(|r| target.parse(r)).collect()
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
    let comma = Bytes::from_static(b",");
    let items = page.records.into_iter().enumerate().flat_map(move |(at, record)| {
        let separator = (at > 0).then(|| comma.clone());
        separator.into_iter().chain(std::iter::once(record.bytes))
    });
    let pieces =
        std::iter::once(Bytes::from(head)).chain(items).chain(std::iter::once(Bytes::from_static(b"]}\n")));
    reply::pieces(pieces, size, call.wanted)
}
