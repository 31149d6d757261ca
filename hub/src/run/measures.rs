//! Figures of other API servers for autoscalers: custom.metrics.k8s.io and external.metrics.k8s.io.
//!
//! In: what a metric of an autoscaler asks for. Out: figures at hand, at most `KEPT_S` old; a question without a fresh answer
//! is asked in the background. What pods use comes from the nodes (`usage`).
//! Source: the Kubernetes pages on HorizontalPodAutoscaler and the custom metrics API. Never: keeps an autoscaler waiting;
//! asks anything when nobody scales by it.

use super::{clock, usage::Usage};
use crate::{
    api::{Api, aggregate},
    auth::User,
};
use limpet_hub_core::{Timestamp, control};
use limpet_objects::quantity::Quantity;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::mpsc;

/// Autoscalers look every 15 seconds.
const FRESH_S: i64 = 12;
/// Older figures than this are none.
const KEPT_S: i64 = 60;
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions between two rounds, and answers that are kept.
const QUESTIONS_MAX: usize = 4096;
const CUSTOM: (&str, [&str; 2]) = ("custom.metrics.k8s.io", ["v1beta2", "v1beta1"]);
const EXTERNAL: (&str, [&str; 1]) = ("external.metrics.k8s.io", ["v1beta1"]);

/// What stands behind group and version in the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    external: bool,
    tail: String,
}

/// (name of the object, thousandths) of each value; `None`: nobody answered.
type Figures = Option<Vec<(String, i64)>>;

#[derive(Clone)]
pub struct Measures {
    usage: Usage,
    api: Weak<Api>,
    known: Arc<Mutex<BTreeMap<Question, (Timestamp, Figures)>>>,
    asked: mpsc::Sender<Question>,
}

impl Measures {
    /// Starts the task that asks; it ends with its last handle.
    pub fn start(usage: Usage, api: &Arc<Api>) -> Measures {
        let (asked, mut questions) = mpsc::channel::<Question>(QUESTIONS_MAX);
        let measures = Measures { usage, api: Arc::downgrade(api), known: Arc::default(), asked };
        let (api, known) = (Weak::clone(&measures.api), Arc::clone(&measures.known));
        tokio::spawn(async move {
            let mut round = Vec::new();
            while questions.recv_many(&mut round, QUESTIONS_MAX).await > 0 {
                let Some(api) = api.upgrade() else { return };
                round.sort();
                round.dedup();
                let all = round.drain(..).map(|question| ask(&api, question));
                let answers = futures_util::future::join_all(all).await;
                let now = clock::now();
                let mut known = lock(&known);
                known.extend(answers.into_iter().map(|(question, figures)| (question, (now, figures))));
                known.retain(|_, (at, _)| now.as_second() - at.as_second() <= KEPT_S);
            }
        });
        measures
    }

    fn figures(&self, question: Question) -> Figures {
        let now = clock::now().as_second();
        let found = lock(&self.known).get(&question).cloned();
        let age = found.as_ref().map(|(at, _)| now - at.as_second());
        if age.is_none_or(|age| age >= FRESH_S) {
            // Full: a round is under way, and the autoscaler comes again.
            let _ = self.asked.try_send(question);
        }
        found.filter(|_| age.is_some_and(|age| age <= KEPT_S))?.1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask(api: &Api, question: Question) -> (Question, Figures) {
    let user = User::internal("system:limpet:horizontal-pod-autoscaler");
    let (group, versions): (&str, &[&str]) =
        if question.external { (EXTERNAL.0, &EXTERNAL.1) } else { (CUSTOM.0, &CUSTOM.1) };
    for version in versions {
        let path = format!("/apis/{group}/{version}/{}", question.tail);
        if let Some(answer) = aggregate::document(api, (group, version), &user, &path, PATIENCE).await {
            return (question, Some(read(&answer)));
        }
    }
    (question, None)
}

/// A MetricValueList or an ExternalMetricValueList.
fn read(answer: &Value) -> Vec<(String, i64)> {
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |item: &Value| {
        let name = item["describedObject"]["name"].as_str().unwrap_or_default().to_owned();
        Some((name, Quantity::from_json(&item["value"]).ok()?.milli_value()))
    };
    items.iter().filter_map(one).collect()
}

impl control::Metrics for Measures {
    fn pod(&self, namespace: &str, pod: &str) -> Option<control::Usage> {
        self.usage.pod(namespace, pod)
    }

    fn of_pod(&self, namespace: &str, pod: &str, metric: &str, selector: &Value) -> Option<control::Figure> {
        // One question for all pods of the namespace.
        let tail = format!("namespaces/{}/pods/*/{}", escaped(namespace), escaped(metric));
        let figures = self.figures(Question { external: false, tail: with_selector(tail, "metricLabelSelector", selector) })?;
        figures.into_iter().find(|(name, _)| name == pod).map(|(_, value)| value)
    }

    fn of_object(&self, namespace: &str, object: &Value, metric: &str, selector: &Value) -> Option<control::Figure> {
        let api = self.api.upgrade()?;
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
        let kinds = api.kinds();
        let of = |version: &str| kinds.of_version(group, version).find(|r| r.kind == text("kind")).cloned();
        let versions = kinds.groups().iter().filter(|g| g.name == group).flat_map(|g| &g.versions);
        let resource = versions.into_iter().find_map(|version| of(version))?;
        let plural = if group.is_empty() { resource.plural.clone() } else { format!("{}.{group}", resource.plural) };
        let (name, metric) = (escaped(text("name")), escaped(metric));
        let tail = match (text("kind"), resource.namespaced) {
            ("Namespace", _) if group.is_empty() => format!("namespaces/{name}/metrics/{metric}"),
            (_, true) => format!("namespaces/{}/{plural}/{name}/{metric}", escaped(namespace)),
            (_, false) => format!("{plural}/{name}/{metric}"),
        };
        let figures = self.figures(Question { external: false, tail: with_selector(tail, "metricLabelSelector", selector) })?;
        figures.first().map(|(_, value)| *value)
    }

    fn external(&self, namespace: &str, metric: &str, selector: &Value) -> Option<Vec<control::Figure>> {
        let tail = format!("namespaces/{}/{}", escaped(namespace), escaped(metric));
        let figures = self.figures(Question { external: true, tail: with_selector(tail, "labelSelector", selector) })?;
        // No series at all is no figure, as upstream has it.
        (!figures.is_empty()).then(|| figures.into_iter().map(|(_, value)| value).collect())
    }
}

fn with_selector(tail: String, field: &str, selector: &Value) -> String {
    match selector_text(selector) {
        text if text.is_empty() => tail,
        text => format!("{tail}?{field}={}", escaped(&text)),
    }
}

/// A LabelSelector as text.
fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let values = term["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        terms.push(match term["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    terms.sort();
    terms.join(",")
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_travel_in_the_query() {
        let selector = json!({"matchLabels": {"queue": "a b", "app": "x"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["one", "two"]}, {"key": "old", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&selector), "!old,app=x,queue=a b,tier in (one,two)");
        assert_eq!(with_selector("t".into(), "s", &json!({"matchLabels": {"a": "b c"}})), "t?s=a%3Db%20c");
        assert_eq!(with_selector("t".into(), "s", &Value::Null), "t");
    }

    #[test]
    fn answers_are_read() {
        let list = json!({"items": [{"describedObject": {"name": "p"}, "value": "1500m"}, {"value": "2k"}, {"value": "x"}]});
        assert_eq!(read(&list), [("p".to_owned(), 1500), (String::new(), 2_000_000)]);
        assert_eq!(read(&json!({"kind": "Status"})), []);
    }
}
