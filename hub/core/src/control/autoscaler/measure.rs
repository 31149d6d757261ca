//! What is measured, and what each metric of an autoscaler asks for.
//!
//! In: a metric of the spec, the pods, the source of figures. Out: replicas and the metric's status, or why not.
//! Never: fetches anything; the source has the figures at hand.

use super::count::{self, Aims, Figures};
use crate::{
    Timestamp,
    view::{Phase, Pod, Requests},
};
use limpet_objects::quantity::{Format, Quantity};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What one container used: CPU in thousandths of a core, memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub cpu_milli: i64,
    pub memory: i64,
}

/// What one pod used, averaged over `window_s` until `at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub at: Timestamp,
    pub window_s: i64,
    pub containers: Vec<Container>,
}

/// A named figure in thousandths.
pub type Figure = i64;

/// Where figures come from. Every answer is at hand; `None`: not known (yet).
pub trait Metrics: Send + Sync {
    fn pod(&self, namespace: &str, pod: &str) -> Option<Usage>;
    /// custom.metrics.k8s.io of one pod.
    fn of_pod(&self, _namespace: &str, _pod: &str, _metric: &str, _selector: &Value) -> Option<Figure> {
        None
    }
    /// custom.metrics.k8s.io of one object.
    fn of_object(&self, _namespace: &str, _object: &Value, _metric: &str, _selector: &Value) -> Option<Figure> {
        None
    }
    /// external.metrics.k8s.io: all series that match.
    fn external(&self, _namespace: &str, _metric: &str, _selector: &Value) -> Option<Vec<Figure>> {
        None
    }
}

/// Nothing is measured.
#[derive(Debug, Default)]
pub struct NoMetrics;

impl Metrics for NoMetrics {
    fn pod(&self, _namespace: &str, _pod: &str) -> Option<Usage> {
        None
    }
}

/// A pod's CPU counts from so long after its start on, and at its first readiness.
const CPU_SETTLES_S: i64 = 300;
const FIRST_READY_S: i64 = 30;

/// Pods by what their figures are worth.
#[derive(Default)]
pub struct Sorted<'a> {
    pub ready: usize,
    pub unready: Vec<&'a str>,
    pub missing: Vec<&'a str>,
}

/// Everything that a metric is judged by.
pub struct Scene<'a> {
    pub metrics: &'a dyn Metrics,
    pub namespace: &'a str,
    pub pods: &'a [&'a Pod],
    pub now: Timestamp,
    pub wanted: i32,
    pub current: i32,
    pub tolerance: (i64, i64),
}

pub struct Found {
    pub replicas: i32,
    pub name: String,
    pub status: Value,
}

type Answer = Result<Found, (&'static str, String)>;

fn milli(value: &Value) -> Option<i64> {
    Quantity::from_json(value).ok().map(|q| q.milli_value())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl<'a> Scene<'a> {
    pub fn one(&self, spec: &Value) -> Answer {
        match text(&spec["type"]) {
            "Resource" => self.resource(&spec["resource"], None),
            "ContainerResource" => {
                let own = &spec["containerResource"];
                self.resource(own, Some(text(&own["container"])))
            }
            "Pods" => self.pods_metric(&spec["pods"]),
            "Object" => self.object(&spec["object"]),
            "External" => self.external(&spec["external"]),
            other => Err(("InvalidMetricSourceType", format!("unknown metric source type \"{other}\""))),
        }
    }

    fn resource(&self, own: &Value, container: Option<&str>) -> Answer {
        let reason = if container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
        let name = text(&own["name"]);
        let target = &own["target"];
        let by_percent = target["averageUtilization"].as_i64();
        let fail = |why: String| (reason, format!("failed to get {name} utilization: {why}"));
        let values = self.usage(name, container);
        let (sorted, kept) = self.sort(values.as_ref().map_or(&BTreeMap::new(), |v| v), name == "cpu");
        if kept.is_empty() {
            let why = "unable to get metrics for resource ".to_owned() + name;
            return Err(fail(format!("{why}: no metrics returned from resource metrics API")));
        }
        let average = kept.values().sum::<i64>() / kept.len() as i64;
        let aims = match (by_percent, milli(&target["averageValue"])) {
            (Some(target), _) => Aims::Percent { target, requests: self.requests(name, container).map_err(fail)? },
            (None, Some(aim)) => Aims::Each(aim),
            (None, None) => {
                return Err((reason, "invalid resource metric source: neither an average utilization target nor \
                    an average value (usage) target was set".into()));
            }
        };
        let figures = Figures { values: kept, aims };
        let Some((replicas, ratio)) = count::replicas(figures, &sorted, self.wanted, self.tolerance) else {
            return Err(fail("the pods request nothing".into()));
        };
        let mut current = json!({"averageValue": shown(name, average)});
        if let Some(target) = by_percent {
            current["averageUtilization"] = json!((ratio * target as f64) as i64);
        }
        let percent = if by_percent.is_some() { "resource utilization (percentage of request)" } else { "resource" };
        Ok(match container {
            None => Found {
                replicas,
                name: format!("{name} {percent}"),
                status: json!({"type": "Resource", "resource": {"name": name, "current": current}}),
            },
            Some(c) => Found {
                replicas,
                name: format!("{name} container {percent}"),
                status: json!({"type": "ContainerResource",
                    "containerResource": {"name": name, "container": c, "current": current}}),
            },
        })
    }

    /// Usage by pod: thousandths of a core, thousandths of a byte.
    fn usage(&self, resource: &str, container: Option<&str>) -> Option<BTreeMap<&'a str, (Usage, i64)>> {
        let mut out = BTreeMap::new();
        for pod in self.pods {
            let Some(usage) = self.metrics.pod(self.namespace, &pod.meta.name) else { continue };
            let amount = |c: &Container| match resource {
                "cpu" => Some(c.cpu_milli),
                "memory" => Some(c.memory.saturating_mul(1000)),
                _ => None,
            };
            let wanted = usage.containers.iter().filter(|c| container.is_none_or(|n| n == c.name));
            let amounts: Option<Vec<i64>> = wanted.map(amount).collect();
            let Some(amounts) = amounts.filter(|a| !a.is_empty()) else { continue };
            out.insert(&*pod.meta.name, (usage, amounts.iter().sum()));
        }
        (!out.is_empty()).then_some(out)
    }

    /// Which figures count, and which pods have none.
    fn sort(&self, all: &BTreeMap<&'a str, (Usage, i64)>, cpu: bool) -> (Sorted<'a>, BTreeMap<&'a str, i64>) {
        let mut sorted = Sorted::default();
        let mut kept = BTreeMap::new();
        for pod in self.pods {
            let name = &*pod.meta.name;
            if pod.meta.deleting.is_some() || matches!(pod.status.phase, Phase::Failed | Phase::Succeeded) {
                continue;
            }
            match all.get(name) {
                _ if pod.status.phase == Phase::Pending => sorted.unready.push(name),
                None => sorted.missing.push(name),
                Some((usage, _)) if cpu && self.settles(pod, usage) => sorted.unready.push(name),
                Some((_, value)) => {
                    sorted.ready += 1;
                    kept.insert(name, *value);
                }
            }
        }
        (sorted, kept)
    }

    /// Whether a pod's CPU is still that of its start.
    fn settles(&self, pod: &Pod, usage: &Usage) -> bool {
        let (Some(started), Some(changed)) = (pod.status.started, pod.status.ready_since) else { return true };
        let age = self.now.as_second() - started.as_second();
        if age < CPU_SETTLES_S {
            return !pod.status.ready || usage.at.as_second() < changed.as_second() + usage.window_s;
        }
        !pod.status.ready && changed.as_second() - started.as_second() < FIRST_READY_S
    }

    /// What each pod requests, in the unit of `usage`.
    fn requests(&self, resource: &str, container: Option<&str>) -> Result<BTreeMap<&'a str, i64>, String> {
        let mut out = BTreeMap::new();
        for pod in self.pods {
            let spec = pod.field("/spec");
            let mut sum = 0_i64;
            let sidecars = spec["initContainers"].as_array().into_iter().flatten().filter(|c| c["restartPolicy"] == "Always");
            for c in spec["containers"].as_array().into_iter().flatten().chain(sidecars) {
                if container.is_some_and(|n| c["name"] != n) {
                    continue;
                }
                let own: Requests = serde_json::from_value(c["resources"]["requests"].clone()).unwrap_or_default();
                let own = own.get(resource);
                if own == 0 {
                    let name = text(&c["name"]);
                    return Err(format!("missing request for {resource} in container {name} of Pod {}", pod.meta.name));
                }
                sum = sum.saturating_add(if resource == "cpu" { own } else { own.saturating_mul(1000) });
            }
            out.insert(&*pod.meta.name, sum);
        }
        Ok(out)
    }

    fn pods_metric(&self, own: &Value) -> Answer {
        let name = text(&own["metric"]["name"]);
        let fail = |why: &str| ("FailedGetPodsMetric", format!("unable to get metric {name}: {why}"));
        let aim = milli(&own["target"]["averageValue"]).ok_or_else(|| fail("no average value target was set"))?;
        let usage = |value: i64| (Usage { at: self.now, window_s: 0, containers: vec![] }, value);
        let of = |p: &&Pod| {
            let value = self.metrics.of_pod(self.namespace, &p.meta.name, name, &own["metric"]["selector"])?;
            Some((p.meta.name.to_string(), usage(value)))
        };
        let found: BTreeMap<String, (Usage, i64)> = self.pods.iter().filter_map(of).collect();
        let named = self.pods.iter().filter_map(|p| Some((&*p.meta.name, found.get(&*p.meta.name)?.clone())));
        let by_name = named.collect();
        let (sorted, kept) = self.sort(&by_name, false);
        if kept.is_empty() {
            return Err(fail("no metrics returned from custom metrics API"));
        }
        let average = kept.values().sum::<i64>() / kept.len() as i64;
        let figures = Figures { values: kept, aims: Aims::Each(aim) };
        let (replicas, _) = count::replicas(figures, &sorted, self.wanted, self.tolerance)
            .ok_or_else(|| fail("the target is not above zero"))?;
        let metric = own["metric"].clone();
        let current = json!({"averageValue": Quantity::from_milli(average).to_string()});
        let status = json!({"type": "Pods", "pods": {"metric": metric, "current": current}});
        Ok(Found { replicas, name: format!("pods metric {name}"), status })
    }

    fn object(&self, own: &Value) -> Answer {
        let name = text(&own["metric"]["name"]);
        let fail = |why: &str| ("FailedGetObjectMetric", format!("unable to get metric {name}: {why}"));
        let object = &own["describedObject"];
        let value = self.metrics.of_object(self.namespace, object, name, &own["metric"]["selector"]);
        let value = value.ok_or_else(|| fail("no metrics returned from custom metrics API"))?;
        let (replicas, current) = self.by_sum(value, &own["target"]).map_err(|why| fail(&why))?;
        let status = json!({"type": "Object",
            "object": {"metric": own["metric"], "describedObject": object, "current": current}});
        let (kind, of) = (text(&object["kind"]), text(&object["name"]));
        Ok(Found { replicas, name: format!("{kind} metric {name} on {of}"), status })
    }

    fn external(&self, own: &Value) -> Answer {
        let name = text(&own["metric"]["name"]);
        let fail = |why: &str| {
            let whole = format!("unable to get external metric {}/{name}: {why}", self.namespace);
            ("FailedGetExternalMetric", whole)
        };
        let series = self.metrics.external(self.namespace, name, &own["metric"]["selector"]);
        let series = series.ok_or_else(|| fail("no metrics returned from external metrics API"))?;
        let value = series.iter().fold(0_i64, |sum, v| sum.saturating_add(*v));
        let (replicas, current) = self.by_sum(value, &own["target"]).map_err(|why| fail(&why))?;
        let status = json!({"type": "External", "external": {"metric": own["metric"], "current": current}});
        Ok(Found { replicas, name: format!("external metric {name}"), status })
    }

    /// One figure for all pods together: `value` for the whole, or `averageValue` for each.
    fn by_sum(&self, value: i64, target: &Value) -> Result<(i32, Value), String> {
        let show = |milli: i64| Quantity::from_milli(milli).to_string();
        if let Some(aim) = milli(&target["value"]).filter(|a| *a > 0) {
            let ratio = value as f64 / aim as f64;
            let ready = self.pods.iter().filter(|p| p.is_active() && p.status.ready).count();
            let replicas = match self.wanted {
                0 => count::ceil(ratio),
                n if count::tolerated(ratio, self.tolerance) => n,
                _ => count::ceil(ratio * ready as f64),
            };
            return Ok((replicas, json!({"value": show(value)})));
        }
        let aim = milli(&target["averageValue"]).filter(|a| *a > 0).ok_or("the target is not above zero")?;
        let ratio = value as f64 / (aim as f64 * f64::from(self.current.max(1)));
        let same = self.current > 0 && count::tolerated(ratio, self.tolerance);
        let replicas = if same { self.current } else { count::ceil(value as f64 / aim as f64) };
        let each = count::ceil(value as f64 / f64::from(self.current.max(1)));
        Ok((replicas, json!({"averageValue": show(i64::from(each))})))
    }
}

/// An average in thousandths as a quantity of its resource.
fn shown(resource: &str, milli: i64) -> String {
    match resource {
        "cpu" => Quantity::from_milli(milli).to_string(),
        _ => Quantity::from_value_of(milli / 1000, Format::DecimalSi).to_string(),
    }
}
