//! ServiceAccounts (v1).
//!
//! In: ServiceAccounts as JSON. Out: the table row. Never: makes tokens.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::name;
use crate::behaviour::{Behaviour, Column};
use crate::table;

#[derive(Debug, Clone, Copy)]
pub struct ServiceAccount;

impl Behaviour for ServiceAccount {
    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), table::age(object, now)]
    }
}
