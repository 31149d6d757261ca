//! The least of every kind that can be made by anybody, and a status that may be written.
//!
//! In: nothing. Out: rows for `operations`. Never: a kind whose objects only the hub makes.

use serde_json::{Value, json};

pub struct Row {
    pub api_version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    spec: Value,
    /// None: it has no status of its own.
    pub status: Option<Value>,
}

impl Row {
    pub fn name(&self, at: usize) -> String {
        match self.plural {
            "ipaddresses" => format!("198.51.100.{}", 10 + at),
            "apiservices" => format!("v1.round-{at}.example.org"),
            _ => format!("round-{at}"),
        }
    }

    pub fn object(&self, at: usize, label: &str, namespace: &str) -> Value {
        let (key, value) = label.split_once('=').unwrap();
        let mut object = self.spec.clone();
        object["metadata"] = json!({"name": self.name(at), "labels": {key: value}});
        match self.plural {
            "apiservices" => object["spec"]["group"] = json!(format!("round-{at}.example.org")),
            "servicecidrs" => object["spec"] = json!({"cidrs": [format!("10.{}.0.0/24", 100 + at)]}),
            "certificatesigningrequests" => object["spec"]["request"] = json!(request()),
            // Of something in the same namespace.
            "events" => {
                let about = if self.api_version == "v1" { "involvedObject" } else { "regarding" };
                object[about]["namespace"] = json!(namespace);
            }
            _ => {}
        }
        object
    }
}

fn request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "round");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem)
}

fn condition() -> Value {
    json!({"conditions": [{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"round": "pod"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "example.org/i:1"}]}})
}

/// None of these wants a pod.
fn workload() -> Value {
    json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"round": "pod"}}, "template": template("Always")}})
}

fn row(api_version: &'static str, plural: &'static str, kind: &'static str, spec: Value, status: Option<Value>) -> Row {
    Row { api_version, plural, kind, namespaced: true, spec, status }
}

fn global(api_version: &'static str, plural: &'static str, kind: &'static str, spec: Value, status: Option<Value>) -> Row {
    Row { namespaced: false, ..row(api_version, plural, kind, spec, status) }
}

pub fn rows() -> Vec<Row> {
    let mut rows = core();
    rows.extend(workloads());
    rows.extend(network());
    rows.extend(storage());
    rows.extend(platform());
    rows.extend(devices());
    rows
}

fn core() -> Vec<Row> {
    let v1 = "v1";
    vec![
        row(v1, "configmaps", "ConfigMap", json!({"data": {"a": "b"}}), None),
        row(v1, "secrets", "Secret", json!({"stringData": {"a": "b"}}), None),
        row(v1, "serviceaccounts", "ServiceAccount", json!({"automountServiceAccountToken": false}), None),
        row(v1, "endpoints", "Endpoints", json!({"subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 80}]}]}),
            None),
        row(v1, "events", "Event", json!({"involvedObject": {}, "reason": "Round", "type": "Normal", "message": "m"}), None),
        row(v1, "limitranges", "LimitRange", json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "64"}}]}}), None),
        row(v1, "podtemplates", "PodTemplate", json!({"template": template("Always")}), None),
        row(v1, "services", "Service", json!({"spec": {"ports": [{"port": 80}]}}), Some(condition())),
        row(v1, "resourcequotas", "ResourceQuota", json!({"spec": {"hard": {"pods": "9"}}}),
            Some(json!({"hard": {"pods": "9"}}))),
        row(v1, "replicationcontrollers", "ReplicationController",
            json!({"spec": {"replicas": 0, "selector": {"round": "pod"}, "template": template("Always")}}),
                Some(condition_core())),
        global(v1, "nodes", "Node", json!({"spec": {"unschedulable": true}}), Some(condition_core())),
        row(v1, "pods", "Pod", json!({"spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "csi": {"driver": "round.example.org", "readOnly": true}}]}}),
            Some(json!({"message": "set by a test", "conditions": [{"type": "StatusUpdate", "status": "True"}]}))),
    ]
}

/// Conditions of older kinds, which need less.
fn condition_core() -> Value {
    json!({"conditions": [{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set by a test"}]})
}

fn workloads() -> Vec<Row> {
    let (apps, batch) = ("apps/v1", "batch/v1");
    let mut set = workload();
    set["spec"].as_object_mut().unwrap().remove("replicas");
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"round": "nowhere"});
    vec![
        row(apps, "deployments", "Deployment", workload(), Some(condition_core())),
        row(apps, "replicasets", "ReplicaSet", workload(), Some(condition_core())),
        row(apps, "statefulsets", "StatefulSet", workload(), Some(condition_core())),
        row(apps, "daemonsets", "DaemonSet", set, Some(condition_core())),
        row(apps, "controllerrevisions", "ControllerRevision", json!({"data": {"any": "thing"}, "revision": 1}), None),
        row(batch, "jobs", "Job", json!({"spec": {"suspend": true, "template": template("Never")}}), Some(condition_core())),
        row(batch, "cronjobs", "CronJob", json!({"spec": {"suspend": true, "schedule": "* */1 * * *",
            "jobTemplate": {"spec": {"template": template("Never")}}}}),
            Some(json!({"lastScheduleTime": "2026-01-01T00:00:00Z"}))),
        row("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"round": "nobody"}}}}), Some(condition())),
        row("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", json!({"spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nobody"}}}), Some(condition_core())),
        row("autoscaling/v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", json!({"spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nobody"}}}),
            Some(json!({"currentCPUUtilizationPercentage": 7}))),
    ]
}

fn network() -> Vec<Row> {
    let v1 = "networking.k8s.io/v1";
    vec![
        row("discovery.k8s.io/v1", "endpointslices", "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.7"]}]}), None),
        row(v1, "ingresses", "Ingress", json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
            Some(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}}))),
        global(v1, "ingressclasses", "IngressClass", json!({"spec": {"controller": "example.org/round"}}), None),
        row(v1, "networkpolicies", "NetworkPolicy", json!({"spec": {"podSelector": {}}}), None),
        global(v1, "ipaddresses", "IPAddress",
            json!({"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}}}), None),
        global(v1, "servicecidrs", "ServiceCIDR", json!({}), Some(condition())),
    ]
}

fn storage() -> Vec<Row> {
    let v1 = "storage.k8s.io/v1";
    vec![
        global(v1, "csidrivers", "CSIDriver", json!({"spec": {"attachRequired": false}}), None),
        global(v1, "csinodes", "CSINode", json!({"spec": {"drivers": []}}), None),
        global(v1, "storageclasses", "StorageClass", json!({"provisioner": "example.org/none"}), None),
        global(v1, "volumeattributesclasses", "VolumeAttributesClass",
            json!({"driverName": "example.org", "parameters": {"a": "b"}}), None),
        row(v1, "csistoragecapacities", "CSIStorageCapacity", json!({"storageClassName": "round"}), None),
        global(v1, "volumeattachments", "VolumeAttachment",
            json!({"spec": {"attacher": "example.org", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
            Some(json!({"attached": true}))),
        global("v1", "persistentvolumes", "PersistentVolume", json!({"spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "storageClassName": "round", "hostPath": {"path": "/tmp/round"}}}),
            Some(json!({"message": "set by a test"}))),
        row("v1", "persistentvolumeclaims", "PersistentVolumeClaim", json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "round-none", "resources": {"requests": {"storage": "1Gi"}}}}), Some(condition_core())),
    ]
}

fn platform() -> Vec<Row> {
    let (rbac, flow, adm) = ("rbac.authorization.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1",
        "admissionregistration.k8s.io/v1");
    let role_ref = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "view"});
    let nothing = json!({"resourceRules": [{"apiGroups": ["round.example.org"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["nothing"]}]});
    let hook = json!({"webhooks": [{"name": "round.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:9/"}, "failurePolicy": "Ignore",
        "rules": [{"apiGroups": ["round.example.org"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["nothing"]}]}]});
    let mutation = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]);
    vec![
        row("coordination.k8s.io/v1", "leases", "Lease", json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 30}}),
            None),
        row("events.k8s.io/v1", "events", "Event", json!({"eventTime": "2026-01-01T00:00:00.000000Z", "action": "Do",
            "reason": "Round", "type": "Normal", "reportingController": "example.org/round", "reportingInstance": "r",
            "note": "n", "regarding": {}}), None),
        global("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", json!({"handler": "round"}), None),
        global("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", json!({"value": 7}), None),
        global(flow, "flowschemas", "FlowSchema", json!({"spec": {"matchingPrecedence": 9000,
            "priorityLevelConfiguration": {"name": "global-default"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "nobody"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/round"]}]}]}}), Some(condition_core())),
        global(flow, "prioritylevelconfigurations", "PriorityLevelConfiguration", json!({"spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}), Some(condition_core())),
        global("certificates.k8s.io/v1", "certificatesigningrequests", "CertificateSigningRequest",
            json!({"spec": {"signerName": "example.org/round", "usages": ["client auth"], "expirationSeconds": 3600}}),
            Some(condition_core())),
        global(rbac, "clusterroles", "ClusterRole", json!({"rules": [{"apiGroups": [""], "resources": ["pods"],
            "verbs": ["get"]}]}), None),
        global(rbac, "clusterrolebindings", "ClusterRoleBinding", json!({"roleRef": role_ref("ClusterRole")}), None),
        row(rbac, "roles", "Role", json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}), None),
        row(rbac, "rolebindings", "RoleBinding", json!({"roleRef": role_ref("ClusterRole")}), None),
        global(adm, "validatingadmissionpolicies", "ValidatingAdmissionPolicy",
            json!({"spec": {"matchConstraints": nothing, "validations": [{"expression": "true"}]}}), Some(condition())),
        global(adm, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "round-0", "validationActions": ["Deny"]}}), None),
        global(adm, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", json!({"spec": {"matchConstraints": nothing,
            "reinvocationPolicy": "Never", "mutations": mutation}}), None),
        global(adm, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "round-0"}}), None),
        global("apiregistration.k8s.io/v1", "apiservices", "APIService", json!({"spec": {"version": "v1",
            "service": {"namespace": "default", "name": "nobody", "port": 443}, "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 2000, "versionPriority": 200}}), Some(condition_core())),
        global(adm, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", hook.clone(), None),
        global(adm, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", hook, None),
    ]
}

fn devices() -> Vec<Row> {
    let v1 = "resource.k8s.io/v1";
    let asked = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    vec![
        global(v1, "deviceclasses", "DeviceClass",
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'example.org'"}}]}}), None),
        row(v1, "resourceclaims", "ResourceClaim", json!({"spec": asked}),
            Some(json!({"allocation": {"devices": {"results": [
                {"request": "r", "driver": "example.org", "pool": "p", "device": "d"}]}}}))),
        row(v1, "resourceclaimtemplates", "ResourceClaimTemplate", json!({"spec": {"spec": asked}}), None),
        global(v1, "resourceslices", "ResourceSlice", json!({"spec": {"driver": "example.org", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d"}]}}), None),
    ]
}
