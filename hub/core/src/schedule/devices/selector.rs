//! CEL expressions that choose devices.
//!
//! In: an expression of a class or a request, one device. Out: whether it is chosen, or the expression's own error.
//! Source: the API reference of CELDeviceSelector. Never: spends more than upstream's budget.

use crate::view::{Attribute, Device};
use limpet_cel::{Decl, Env, Key, Meter, Program, QUANTITY, Type, Value};
use std::collections::BTreeMap;

/// As upstream.
const COST_MAX: u64 = 1_000_000;

#[derive(Debug)]
pub struct Selector {
    program: Program,
    /// Texts in the expression: a domain that no attribute has is an empty map.
    texts: Vec<String>,
}

impl Selector {
    pub fn compile(expression: &str) -> Result<Selector, String> {
        let names = |value| Type::map(Type::String, Type::map(Type::String, value));
        let fields = [
            ("driver".to_owned(), Type::String),
            ("attributes".to_owned(), names(Type::Dyn)),
            ("capacity".to_owned(), names(Type::Opaque(QUANTITY))),
            ("allowMultipleAllocations".to_owned(), Type::Bool),
        ];
        let env = Env::default().with("device", Decl::of(Type::object("DRADevice", fields), 32));
        let program = Program::compile(expression, &env)?;
        if !program.gives(&Type::Bool) {
            return Err("must evaluate to bool".into());
        }
        let texts = program.texts();
        Ok(Selector { program, texts })
    }

    pub fn matches(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let attributes = device.attributes.iter().filter_map(|(name, a)| Some((&**name, value(a)?)));
        let capacity = device.capacity.iter().filter_map(|(name, c)| Some((&**name, Value::quantity(&c.value)?)));
        let fields = [
            ("driver", Value::text(driver)),
            ("attributes", self.by_domain(driver, attributes)),
            ("capacity", self.by_domain(driver, capacity)),
            ("allowMultipleAllocations", Value::Bool(device.allow_multiple_allocations)),
        ];
        let device = Value::map(fields.map(|(name, value)| (Key::String(name.into()), value)));
        match self.program.run(&[("device", device)], &mut Meter::new(COST_MAX)) {
            Ok(Value::Bool(chosen)) => Ok(chosen),
            Ok(other) => Err(format!("must evaluate to bool, not {}", other.type_name())),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// A name without a domain belongs to the driver's.
    fn by_domain<'a>(&self, driver: &str, values: impl Iterator<Item = (&'a str, Value)>) -> Value {
        let mut domains: BTreeMap<&str, Vec<(Key, Value)>> = BTreeMap::new();
        self.texts.iter().for_each(|t| _ = domains.entry(t).or_default());
        for (name, value) in values {
            let (domain, id) = name.split_once('/').unwrap_or((driver, name));
            // The borrow of `driver` and that of the names are as long as this call.
            domains.entry(domain).or_default().push((Key::String(id.into()), value));
        }
        Value::map(domains.into_iter().map(|(d, values)| (Key::String(d.into()), Value::map(values))))
    }
}

fn value(attribute: &Attribute) -> Option<Value> {
    let text = attribute.string.as_ref().map(Value::text);
    let version = || Value::semver(attribute.version.as_ref()?);
    text.or_else(|| attribute.int.map(Value::Int)).or_else(|| attribute.bool.map(Value::Bool)).or_else(version)
}
