//! Who asks, and whether they may.
//!
//! In: the client certificate that TLS verified, the Authorization and Impersonate headers. Out: `User`, or a
//! 401/403.
//! Never: trusts a header without a right that allows it.

pub mod authorize;
mod impersonate;
pub mod jwt;
pub mod legacy;
pub mod tokens;
pub mod user;
pub mod x509;

pub use authorize::{Asked, Authorizer};
pub use impersonate::apply as impersonate;
pub use user::User;

use crate::api::limits;
use http::{HeaderMap, header};
use jiff::Timestamp;
use limpet_objects::status::Status;
use tokens::Tokens;

/// What is known of the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The user of its client certificate.
    pub user: Option<User>,
    /// Its DER; empty when it showed none.
    pub certificate: Vec<u8>,
    pub address: Option<std::net::SocketAddr>,
}

/// The user behind a request; `impersonate` tells as whom it is made.
pub fn authenticate(
    tokens: &Tokens,
    peer: &Peer,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<User, Status> {
    match &peer.user {
        Some(user) => Ok(user.clone()),
        None => bearer(tokens, headers, now),
    }
}

fn bearer(tokens: &Tokens, headers: &HeaderMap, now: Timestamp) -> Result<User, Status> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(User::anonymous()) };
    let text = value.to_str().map_err(|_| Status::unauthorized())?;
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim()).ok_or_else(Status::unauthorized)?;
    user_of_token(tokens, token, now)
}

/// The user of a bearer token for the API itself.
pub fn user_of_token(tokens: &Tokens, token: &str, now: Timestamp) -> Result<User, Status> {
    if token.len() > limits::TOKEN_BYTES_MAX {
        return Err(Status::unauthorized());
    }
    tokens.user(token, &[], now).map(|(user, _)| user).map_err(|why| {
        tracing::debug!(%why, "bearer token refused");
        Status::unauthorized()
    })
}
