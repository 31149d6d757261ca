//! Workloads without a node: what controllers say in status and scale, whom a budget protects, reviews, certificates.
//!
//! In: the hub of `live` with its controllers; pods' status is written here. Out: fails on what clients would not see.
//! Source: "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "Job", "DisruptionController",
//! "Certificates API", "SubjectReview" of the conformance suite.

use crate::live::{APPLY, Client, MERGE, STRATEGIC};
use serde_json::{Value, json};

fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": "w"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "example.org/i:1"}]}})
}

fn workload(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "w"}}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "w"}}, "template": template("Always")}})
}

/// What a kubelet would say.
fn run(c: &mut Client, pods: &str) {
    let all = c.got(pods)["items"].as_array().cloned().unwrap_or_default();
    for pod in all.iter().filter(|pod| pod["status"]["phase"] != "Running") {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        c.ask("PATCH", &format!("{pods}/{name}/status"), STRATEGIC, &status);
    }
}

#[test]
fn a_deployment_lives_through_its_changes() {
    let mut c = Client::new("apps");
    let (one, pods) = (c.at("apps/v1", "deployments/w"), c.at("v1", "pods"));
    let sets = c.at("apps/v1", "replicasets");
    let mut object = workload("w", 2);
    object["spec"]["template"]["spec"]["schedulerName"] = json!("nobody");
    c.made(&c.at("apps/v1", "deployments"), object);
    c.until("two are ready", |c| {
        run(c, &pods);
        c.got(&one)["status"]["readyReplicas"] == 2
    });
    let patched = c.patched(&one, STRATEGIC, json!({"spec": {"replicas": 1, "template": {"spec": {
        "containers": [{"name": "c", "image": "example.org/i:2"}]}}}}));
    assert_eq!(patched["metadata"]["generation"], 2);
    c.until("the new one has taken over", |c| {
        run(c, &pods);
        let status = c.got(&one)["status"].clone();
        status["observedGeneration"] == 2 && status["updatedReplicas"] == 1 && status["replicas"] == 1
            && status["readyReplicas"] == 1
    });
    let all = c.got(&sets)["items"].as_array().cloned().unwrap();
    let revisions: Vec<&Value> = all.iter().map(|s| &s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]).collect();
    assert!(revisions.contains(&&json!("1")) && revisions.contains(&&json!("2")), "{revisions:?}");
    let scale = c.got(&format!("{one}/scale"));
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!("Scale"), &json!(1),
        &json!("app=w")));
    let conditions = c.got(&one)["status"]["conditions"].clone();
    for kind in ["Available", "Progressing"] {
        assert!(conditions.as_array().unwrap().iter().any(|x| x["type"] == kind && x["status"] == "True"), "{conditions}");
    }
}

#[test]
fn scales_are_read_patched_and_replaced() {
    let mut c = Client::new("apps");
    for (api_version, plural) in
        [("apps/v1", "replicasets"), ("apps/v1", "statefulsets"), ("apps/v1", "deployments"), ("v1", "replicationcontrollers")]
    {
        let mut object = workload("w", 0);
        object["spec"]["paused"] = json!(true);
        if plural != "deployments" {
            object["spec"].as_object_mut().unwrap().remove("paused");
        }
        if plural == "replicationcontrollers" {
            object["spec"]["selector"] = json!({"app": "w"});
        }
        let collection = c.at(api_version, plural);
        c.made(&collection, object);
        let path = format!("{collection}/w/scale");
        assert_eq!(c.got(&path)["status"]["replicas"], 0, "{plural}");
        assert_eq!(c.patched(&path, MERGE, json!({"spec": {"replicas": 3}}))["spec"]["replicas"], 3, "{plural}");
        assert_eq!(c.got(&format!("{collection}/w"))["spec"]["replicas"], 3, "{plural}");
        assert_eq!(c.changed(&path, |scale| scale["spec"]["replicas"] = json!(0))["spec"]["replicas"], 0, "{plural}");
        let applied = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "w"},
            "spec": {"replicas": 0}});
        assert_eq!(c.patched(&format!("{path}?fieldManager=f&force=true"), APPLY, applied)["spec"]["replicas"], 0, "{plural}");
        c.deleted(&format!("{collection}/w"), json!({}));
        c.gone(&format!("{collection}/w"));
    }
}

#[test]
fn a_replica_set_adopts_and_releases() {
    let mut c = Client::new("apps");
    let pods = c.at("v1", "pods");
    let mut lone = json!({"metadata": {"name": "lone", "labels": {"app": "w"}}, "spec": template("Always")["spec"]});
    lone["spec"]["schedulerName"] = json!("nobody");
    c.made(&pods, lone);
    c.made(&c.at("apps/v1", "replicasets"), workload("w", 1));
    let lone = format!("{pods}/lone");
    c.until("it is adopted", |c| c.got(&lone)["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet");
    c.patched(&lone, MERGE, json!({"metadata": {"labels": {"app": "other"}}}));
    c.until("it is released", |c| c.got(&lone)["metadata"].get("ownerReferences").is_none());
    c.until("another one is there", |c| c.got(&pods)["items"].as_array().is_some_and(|all| all.len() == 2));
}

#[test]
fn a_job_lives_through_its_changes() {
    let mut c = Client::new("apps");
    let (one, pods) = (c.at("batch/v1", "jobs/j"), c.at("v1", "pods"));
    let mut spec = template("Never");
    spec["spec"]["schedulerName"] = json!("nobody");
    c.made(&c.at("batch/v1", "jobs"), json!({"metadata": {"name": "j"}, "spec": {"suspend": true, "parallelism": 2,
        "completions": 2, "template": spec}}));
    c.until("it is suspended", |c| {
        let conditions = c.got(&one)["status"]["conditions"].clone();
        conditions.as_array().into_iter().flatten().any(|x| x["type"] == "Suspended" && x["status"] == "True")
    });
    c.patched(&one, STRATEGIC, json!({"spec": {"suspend": false}}));
    c.until("two pods", |c| c.got(&one)["status"]["active"] == 2);
    let (code, status) = c.ask("PATCH", &one, MERGE, &json!({"spec": {"completions": 3}}));
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
    for pod in c.got(&pods)["items"].as_array().unwrap() {
        let path = format!("{pods}/{}/status", pod["metadata"]["name"].as_str().unwrap());
        c.patched(&path, MERGE, json!({"status": {"phase": "Succeeded"}}));
    }
    c.until("it is complete", |c| {
        let status = c.got(&one)["status"].clone();
        let complete = status["conditions"].as_array().into_iter().flatten().any(|x| x["type"] == "Complete"
            && x["status"] == "True");
        complete && status["succeeded"] == 2
    });
    c.deleted(&one, json!({"propagationPolicy": "Foreground"}));
    c.gone(&one);
    assert!(c.got(&pods)["items"].as_array().unwrap().is_empty());
}

#[test]
fn a_budget_blocks_evictions() {
    let mut c = Client::new("apps");
    let (pods, budget) = (c.at("v1", "pods"), c.at("policy/v1", "poddisruptionbudgets/b"));
    c.made(&c.at("policy/v1", "poddisruptionbudgets"), json!({"metadata": {"name": "b"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "w"}}}}));
    c.until("the budget is looked at", |c| c.got(&budget)["status"]["observedGeneration"] == 1);
    for name in ["a", "b"] {
        let mut pod = json!({"metadata": {"name": name, "labels": {"app": "w"}}, "spec": template("Always")["spec"]});
        pod["spec"]["schedulerName"] = json!("nobody");
        c.made(&pods, pod);
    }
    run(&mut c, &pods);
    c.until("two healthy", |c| c.got(&budget)["status"]["currentHealthy"] == 2);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let (code, status) = c.post(&format!("{pods}/a/eviction"), eviction.clone());
    assert_eq!((code, &status["reason"]), (429, &json!("TooManyRequests")), "{status}");
    assert_eq!(status["details"]["causes"][0]["reason"], "DisruptionBudget");
    c.patched(&budget, MERGE, json!({"spec": {"minAvailable": 1}}));
    c.until("one may go", |c| c.got(&budget)["status"]["disruptionsAllowed"] == 1);
    assert_eq!(c.post(&format!("{pods}/a/eviction"), eviction).0, 201);
    let stay = json!({"metadata": {"name": "b"}});
    assert_eq!(c.post(&format!("{pods}/b/eviction"), stay).0, 429);
}

#[test]
fn pods_count_their_generations() {
    let mut c = Client::new("apps");
    let pods = c.at("v1", "pods");
    let mut pod = json!({"metadata": {"name": "p", "generation": 100}, "spec": template("Always")["spec"]});
    pod["spec"]["schedulerName"] = json!("nobody");
    assert_eq!(c.made(&pods, pod)["metadata"]["generation"], 1);
    let one = format!("{pods}/p");
    let labelled = c.patched(&one, MERGE, json!({"metadata": {"labels": {"l": "1"}}}));
    assert_eq!(labelled["metadata"]["generation"], 1);
    let tolerated = c.changed(&one, |pod| {
        pod["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}));
    });
    assert_eq!(tolerated["metadata"]["generation"], 2);
    let image = c.patched(&one, STRATEGIC, json!({"spec": {"containers": [{"name": "c", "image": "example.org/i:2"}]}}));
    assert_eq!(image["metadata"]["generation"], 3);
    let status = c.patched(&format!("{one}/status"), MERGE, json!({"status": {"phase": "Running"}}));
    assert_eq!(status["metadata"]["generation"], 3);
}

#[test]
fn certificates_are_approved_and_denied() {
    let mut c = Client::new("apps");
    let all = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    for (kind, other) in [("Approved", "Denied"), ("Denied", "Approved")] {
        let name = format!("{}-{}", c.namespace, kind.to_lowercase());
        c.made(all, json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": "example.org/e2e",
            "expirationSeconds": 3600, "usages": ["digital signature", "key encipherment", "client auth"]}}));
        let path = format!("{all}/{name}");
        let made = c.got(&path);
        assert_eq!((&made["spec"]["username"].is_string(), &made["spec"]["request"]), (&true, &json!(request)));
        let decide = |kind: &str| json!({"type": kind, "status": "True", "reason": "E2E", "message": "decided by a test"});
        let decided = c.changed(&format!("{path}/approval"), |object| {
            object["status"]["conditions"] = json!([decide(kind)]);
        });
        assert_eq!(decided["status"]["conditions"][0]["type"], kind);
        let mut both = decided.clone();
        both["status"]["conditions"] = json!([decide(kind), decide(other)]);
        assert_eq!(c.put(&format!("{path}/approval"), &both).0, 422, "both at once");
        let patched = c.patched(&format!("{path}/status"), MERGE, json!({"metadata": {"annotations": {"s": "t"}}}));
        assert_eq!(patched["metadata"]["annotations"]["s"], "t");
        assert_eq!(c.delete(&path).0, 200);
    }
}

#[test]
fn reviews_say_who_may_what() {
    let mut c = Client::new("apps");
    let who = c.made("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}));
    assert!(who["status"]["userInfo"]["username"].is_string(), "{who}");
    let user = format!("system:serviceaccount:{}:default", c.namespace);
    let attributes = json!({"namespace": c.namespace, "verb": "list", "resource": "pods", "version": "v1"});
    let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
    let global = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let local = c.at("authorization.k8s.io/v1", "localsubjectaccessreviews");
    let mut near = review.clone();
    near["metadata"] = json!({"namespace": c.namespace});
    for (path, body) in [(global, &review), (&local, &near)] {
        assert_eq!(c.made(path, body.clone())["status"]["allowed"], false, "{path}");
    }
    let bindings = c.at("rbac.authorization.k8s.io/v1", "rolebindings");
    c.made(&bindings, json!({"metadata": {"name": "v"}, "subjects": [{"kind": "ServiceAccount", "name": "default"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}}));
    for (path, body) in [(global, &review), (&local, &near)] {
        let body = body.clone();
        c.until("the right is there", |c| c.made(path, body.clone())["status"]["allowed"] == true);
    }
    let own = json!({"spec": {"resourceAttributes": attributes}});
    assert_eq!(c.made("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", own)["status"]["allowed"], true);
    let rules = json!({"spec": {"namespace": c.namespace}});
    let rules = c.made("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules);
    assert!(rules["status"]["resourceRules"].as_array().is_some_and(|all| !all.is_empty()), "{rules}");
}
