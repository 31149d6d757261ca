//! Runs compiled policies on a request.
//!
//! In: a `Policy`, the request's variables, one set of parameters. Out: decisions, or patches.
//! Never: more than `RUN_COST_MAX` for one policy and request.

use std::sync::{Arc, Mutex, PoisonError};

use limpet_cel::{Failure, Host, Key, Meter, Outcome, Program, Value as Cel, Variables};
use serde_json::{Value, json};

use super::compile::{Policy, Validation};
use crate::patch::Place;
use crate::patch::join::join;

/// Cost of one expression, and of all of one policy: upstream's.
const CALL_COST_MAX: u64 = 1_000_000;
const RUN_COST_MAX: u64 = 10_000_000;

/// What expressions can read.
#[derive(Clone, Debug)]
pub struct Given {
    pub object: Cel,
    pub old: Cel,
    pub request: Cel,
    pub namespace: Cel,
    pub params: Cel,
    pub authorizer: Option<Arc<dyn Host>>,
}

/// One expression that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub message: String,
    /// `Invalid`, unless the policy says otherwise.
    pub reason: String,
}

/// The variables of a run; those that the policy defines are made when they are first read.
struct Run {
    given: Given,
    variables: Option<Arc<Lazy>>,
}

impl Variables for Run {
    fn look_up(&self, name: &str, _meter: &mut Meter) -> Option<Outcome> {
        Some(Ok(match name {
            "object" => self.given.object.clone(),
            "oldObject" => self.given.old.clone(),
            "request" => self.given.request.clone(),
            "namespaceObject" => self.given.namespace.clone(),
            "params" => self.given.params.clone(),
            "authorizer" => Cel::Host(Arc::clone(self.given.authorizer.as_ref()?)),
            "variables" => {
                let lazy: Arc<dyn Host> = Arc::clone(self.variables.as_ref()?) as Arc<dyn Host>;
                Cel::Host(lazy)
            }
            _ => return None,
        }))
    }
}

#[derive(Debug)]
struct Lazy {
    programs: Vec<(String, Program)>,
    given: Given,
    made: Mutex<std::collections::BTreeMap<String, Result<Cel, String>>>,
    /// What all of this policy may still cost.
    left: Arc<Mutex<u64>>,
    /// How many variables are known here: a variable reads only those before it.
    count: usize,
}

impl Host for Lazy {
    fn type_name(&self) -> &'static str {
        "kubernetes.variables"
    }

    fn call(&self, name: &str, _args: &[Cel]) -> Result<Cel, String> {
        if let Some(made) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return made.clone();
        }
        let at = self.programs[..self.count]
            .iter()
            .position(|(own, _)| own == name);
        let Some(at) = at else {
            return Err(format!("no such key: {name}"));
        };
        let before = Lazy {
            programs: self.programs.clone(),
            given: self.given.clone(),
            made: Mutex::new(self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            left: Arc::clone(&self.left),
            count: at,
        };
        let run = Run {
            given: self.given.clone(),
            variables: Some(Arc::new(before)),
        };
        let made = metered(&self.programs[at].1, &run, &self.left).map_err(|failure| failure.to_string());
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), made.clone());
        made
    }
}

fn metered(program: &Program, run: &Run, left: &Mutex<u64>) -> Outcome {
    let may = *left.lock().unwrap_or_else(PoisonError::into_inner);
    let mut meter = Meter::new(CALL_COST_MAX.min(may));
    let outcome = program.run(run, &mut meter);
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    *left = left.saturating_sub(meter.used);
    outcome
}

/// One policy with one set of parameters, for one request.
pub struct Runner<'a> {
    policy: &'a Policy,
    run: Run,
    left: Arc<Mutex<u64>>,
}

impl<'a> Runner<'a> {
    pub fn new(policy: &'a Policy, given: Given) -> Self {
        let left = Arc::new(Mutex::new(RUN_COST_MAX));
        let lazy = Lazy {
            programs: policy.variables.clone(),
            given: given.clone(),
            made: Mutex::default(),
            left: Arc::clone(&left),
            count: policy.variables.len(),
        };
        let run = Run {
            given,
            variables: Some(Arc::new(lazy)),
        };
        Self { policy, run, left }
    }

    fn outcome(&self, program: &Program) -> Outcome {
        metered(program, &self.run, &self.left)
    }

    /// Whether the policy is about the request. An error is the failure policy's matter.
    pub fn matches(&self) -> Result<bool, String> {
        let conditions = self
            .policy
            .conditions
            .iter()
            .map(|(name, program)| (name.as_str(), self.outcome(program)));
        all_hold(conditions)
    }

    /// Expressions that do not hold. `Err`: one could not be evaluated.
    pub fn validate(&self) -> Vec<Result<Denial, String>> {
        let check = |validation: &Validation| {
            match self.outcome(&validation.program) {
            Ok(Cel::Bool(true)) => None,
            Ok(_) => Some(Ok(self.denial(validation))),
            Err(Failure::Cost) => Some(Err("validation failed due to running out of cost budget, no further validation rules will be run".to_owned())),
            Err(failure) => Some(Err(format!("expression '{}' resulted in error: {failure}", validation.program.text))),
        }
        };
        self.policy.validations.iter().filter_map(check).collect()
    }

    fn denial(&self, validation: &Validation) -> Denial {
        let own = validation
            .message_program
            .as_ref()
            .and_then(|program| match self.outcome(program) {
                Ok(Cel::String(text))
                    if !text.trim().is_empty() && !text.contains('\n') && text.len() <= 5 * 1024 =>
                {
                    Some(text.trim().to_owned())
                }
                _ => None,
            });
        let message = own.unwrap_or_else(|| match validation.message.as_str() {
            "" => format!("failed expression: {}", validation.program.text),
            message => message.to_owned(),
        });
        let reason = if validation.reason.is_empty() {
            "Invalid".to_owned()
        } else {
            validation.reason.clone()
        };
        Denial { message, reason }
    }

    /// Annotations for the audit log.
    pub fn audit(&self) -> Vec<(String, String)> {
        let one = |(key, program): &(String, Program)| match self.outcome(program) {
            Ok(Cel::String(text)) if !text.is_empty() => Some((key.clone(), text.to_string())),
            _ => None,
        };
        self.policy.audit.iter().filter_map(one).collect()
    }

    /// The object after one mutation.
    pub fn mutate(&self, at: usize, object: &Value, place: Place<'_>) -> Result<Value, String> {
        let Some(mutation) = self.policy.mutations.get(at) else {
            return Ok(object.clone());
        };
        let made = self
            .outcome(&mutation.program)
            .map_err(|failure| failure.to_string())?;
        if mutation.json_patch {
            let patch = operations(&made)?;
            let bytes = serde_json::to_vec(&patch).map_err(|why| why.to_string())?;
            return crate::patch::json(object, &bytes).map_err(|why| format!("JSON Patch: {why}"));
        }
        let applied = made
            .to_json()
            .filter(Value::is_object)
            .ok_or("must evaluate to Object")?;
        let meta = applied["metadata"].as_object().into_iter().flatten();
        let open = ["labels", "annotations", "finalizers", "ownerReferences"];
        if let Some((name, _)) = meta.into_iter().find(|(name, _)| !open.contains(&name.as_str())) {
            return Err(format!("metadata.{name} cannot be changed by a mutation"));
        }
        let findings = crate::patch::typed::check(place, &applied);
        if let Some(first) = findings.first() {
            return Err(format!("invalid ApplyConfiguration: {first}"));
        }
        Ok(join(place, object, &applied))
    }
}

/// A list of `JSONPatch{…}` as a JSON patch.
fn operations(made: &Cel) -> Result<Value, String> {
    let Cel::List(items, _) = made else {
        return Err("must evaluate to a list of JSONPatch".to_owned());
    };
    let field = |item: &Cel, name: &str| match item {
        Cel::Map(fields) => fields.get(&Key::from(name)).and_then(Cel::to_json),
        _ => None,
    };
    let one = |item: &Cel| {
        let mut operation = json!({});
        for name in ["op", "path", "from", "value"] {
            if let Some(value) = field(item, name) {
                operation[name] = value;
            }
        }
        operation
    };
    Ok(items.iter().map(one).collect())
}

/// Whether all conditions hold. One that is false decides; otherwise errors do.
pub fn all_hold<'a>(outcomes: impl Iterator<Item = (&'a str, Outcome)>) -> Result<bool, String> {
    let mut errors = Vec::new();
    for (name, outcome) in outcomes {
        match outcome {
            Ok(Cel::Bool(true)) => {}
            Ok(Cel::Bool(false)) => return Ok(false),
            Ok(_) => errors.push(format!("matchCondition {name:?} is not a bool")),
            Err(failure) => errors.push(format!("matchCondition {name:?}: {failure}")),
        }
    }
    if errors.is_empty() {
        Ok(true)
    } else {
        Err(errors.join(", "))
    }
}

/// Match conditions of a webhook.
pub fn conditions(conditions: &[(String, Program)], given: &Given) -> Result<bool, String> {
    let left = Mutex::new(RUN_COST_MAX);
    let run = Run {
        given: given.clone(),
        variables: None,
    };
    all_hold(
        conditions
            .iter()
            .map(|(name, program)| (name.as_str(), metered(program, &run, &left))),
    )
}
