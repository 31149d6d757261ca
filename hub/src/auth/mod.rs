//! Who asks, and whether they may.
//!
//! In: the client certificate that TLS verified, the Authorization and Impersonate headers. Out: `User`, or a
//! 401/403.
//! Never: trusts a header without a right that allows it.

pub mod authorize;
pub mod authz;
mod bootstrap;
mod impersonate;

mod chain;
pub mod front;
pub mod oidc;
mod static_tokens;
mod token_webhook;

mod answers;

pub mod jwt;
pub mod legacy;
pub mod tokens;
pub mod user;
pub mod x509;

pub use authorize::{Asked, Authorizer};
pub use impersonate::{Acting, apply as impersonate};
pub use user::User;

pub use authz::AuthzOptions;
pub use chain::{Authenticators, AuthnOptions, Oidc};

use crate::api::limits;
use jiff::Timestamp;
use limpet_objects::status::Status;
use tokens::Tokens;

/// What is known of the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The user of its client certificate.
    pub user: Option<User>,
    /// Its DER; empty when it showed none of the hub's own authority.
    pub certificate: Vec<u8>,
    /// DER of the certificate of a front proxy's authority; empty when it showed none.
    pub front: Vec<u8>,
    pub address: Option<std::net::SocketAddr>,
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
