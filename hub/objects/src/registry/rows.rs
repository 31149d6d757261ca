//! The rows of the registry: one for every resource of Kubernetes 1.36's stable groups.
//!
//! In: names and numbers of the API. Out: `GROUPS`, read once by `registry()`.
//! Never: behaviour: a row names the file under `kinds` that has it. Adding a kind is adding that file and one
//! row here.

use std::sync::Arc;

use crate::behaviour::{Plain, SharedBehaviour};
use crate::kinds;

pub(super) struct Row {
    pub api: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Sub],
    /// apiVersion of the stored form where it is another one.
    pub stored_api: &'static str,
    pub generation: bool,
    pub behaviour: fn() -> SharedBehaviour,
}

pub(super) struct Sub {
    pub name: &'static str,
    /// Empty: the resource's own kind.
    pub kind: &'static str,
    /// Empty: the resource's own apiVersion.
    pub api: &'static str,
    pub verbs: &'static [&'static str],
}

/// What most rows have in common.
const ROW: Row = Row {
    api: "", kind: "", plural: "", namespaced: true, short_names: &[], categories: &[], verbs: FULL,
    subresources: &[], stored_api: "", generation: false, behaviour: || Arc::new(Plain),
};

const ALL: &[&str] = &["all"];
const API_EXTENSIONS: &[&str] = &["api-extensions"];

const FULL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const CHANGE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

const SUB: Sub = Sub { name: "", kind: "", api: "", verbs: CHANGE };
const STATUS: Sub = Sub { name: "status", ..SUB };
const SCALE: Sub = Sub { name: "scale", kind: "Scale", api: "autoscaling/v1", ..SUB };
const APPROVAL: Sub = Sub { name: "approval", ..SUB };
const FINALIZE: Sub = Sub { name: "finalize", verbs: &["update"], ..SUB };
const ATTACH: Sub = Sub { name: "attach", kind: "PodAttachOptions", verbs: CONNECT, ..SUB };
const BINDING: Sub = Sub { name: "binding", kind: "Binding", verbs: CREATE, ..SUB };
const EPHEMERALCONTAINERS: Sub = Sub { name: "ephemeralcontainers", ..SUB };
const EVICTION: Sub = Sub { name: "eviction", kind: "Eviction", api: "policy/v1", verbs: CREATE };
const EXEC: Sub = Sub { name: "exec", kind: "PodExecOptions", verbs: CONNECT, ..SUB };
const LOG: Sub = Sub { name: "log", verbs: &["get"], ..SUB };
const PORTFORWARD: Sub = Sub { name: "portforward", kind: "PodPortForwardOptions", verbs: CONNECT, ..SUB };
const RESIZE: Sub = Sub { name: "resize", ..SUB };
const TOKEN: Sub = Sub { name: "token", kind: "TokenRequest", api: "authentication.k8s.io/v1", verbs: CREATE };
const NODE_PROXY: Sub = Sub { name: "proxy", kind: "NodeProxyOptions", verbs: PROXY_VERBS, ..SUB };
const POD_PROXY: Sub = Sub { name: "proxy", kind: "PodProxyOptions", verbs: PROXY_VERBS, ..SUB };
const SERVICE_PROXY: Sub = Sub { name: "proxy", kind: "ServiceProxyOptions", verbs: PROXY_VERBS, ..SUB };

const POD_SUBRESOURCES: &[Sub] = &[
    ATTACH, BINDING, EPHEMERALCONTAINERS, EVICTION, EXEC, LOG, PORTFORWARD, POD_PROXY, RESIZE, STATUS,
];

/// All rows, group by group in the order in which discovery lists them.
pub(super) const GROUPS: &[&[Row]] = &[
    CORE, APIREGISTRATION, APPS, EVENTS, AUTHENTICATION, AUTHORIZATION, AUTOSCALING_V2,
    AUTOSCALING_V1, BATCH, CERTIFICATES, NETWORKING, POLICY, RBAC, STORAGE, ADMISSIONREGISTRATION,
    APIEXTENSIONS, SCHEDULING, COORDINATION, NODE, DISCOVERY, RESOURCE, FLOWCONTROL, LIMPET, METRICS,
];

const CORE: &[Row] = &[
    Row { api: "v1", kind: "Binding", plural: "bindings", verbs: CREATE, ..ROW },
    Row {
        api: "v1", kind: "ComponentStatus", plural: "componentstatuses", namespaced: false,
        short_names: &["cs"], verbs: &["get", "list"],
        behaviour: || Arc::new(kinds::ComponentStatus), ..ROW
    },
    Row {
        api: "v1", kind: "ConfigMap", plural: "configmaps", short_names: &["cm"],
        behaviour: || Arc::new(kinds::ConfigMap), ..ROW
    },
    Row {
        api: "v1", kind: "Endpoints", plural: "endpoints", short_names: &["ep"],
        behaviour: || Arc::new(kinds::Endpoints), ..ROW
    },
    Row {
        api: "v1", kind: "Event", plural: "events", short_names: &["ev"],
        behaviour: || Arc::new(kinds::CoreEvent), ..ROW
    },
    Row {
        api: "v1", kind: "LimitRange", plural: "limitranges", short_names: &["limits"],
        behaviour: || Arc::new(kinds::LimitRange), ..ROW
    },
    Row {
        api: "v1", kind: "Namespace", plural: "namespaces", namespaced: false, short_names: &["ns"],
        verbs: NO_COLLECTION, subresources: &[FINALIZE, STATUS],
        behaviour: || Arc::new(kinds::Namespace), ..ROW
    },
    Row {
        api: "v1", kind: "Node", plural: "nodes", namespaced: false, short_names: &["no"],
        subresources: &[NODE_PROXY, STATUS], behaviour: || Arc::new(kinds::Node), ..ROW
    },
    Row {
        api: "v1", kind: "PersistentVolumeClaim", plural: "persistentvolumeclaims",
        short_names: &["pvc"], subresources: &[STATUS],
        behaviour: || Arc::new(kinds::PersistentVolumeClaim), ..ROW
    },
    Row {
        api: "v1", kind: "PersistentVolume", plural: "persistentvolumes", namespaced: false,
        short_names: &["pv"], subresources: &[STATUS],
        behaviour: || Arc::new(kinds::PersistentVolume), ..ROW
    },
    Row {
        api: "v1", kind: "Pod", plural: "pods", short_names: &["po"], categories: ALL,
        subresources: POD_SUBRESOURCES, generation: true, behaviour: || Arc::new(kinds::Pod), ..ROW
    },
    Row {
        api: "v1", kind: "PodTemplate", plural: "podtemplates",
        behaviour: || Arc::new(kinds::PodTemplate), ..ROW
    },
    Row {
        api: "v1", kind: "ReplicationController", plural: "replicationcontrollers",
        short_names: &["rc"], categories: ALL, subresources: &[SCALE, STATUS], generation: true,
        behaviour: || Arc::new(kinds::ReplicationController), ..ROW
    },
    Row {
        api: "v1", kind: "ResourceQuota", plural: "resourcequotas", short_names: &["quota"],
        subresources: &[STATUS], behaviour: || Arc::new(kinds::ResourceQuota), ..ROW
    },
    Row { api: "v1", kind: "Secret", plural: "secrets", behaviour: || Arc::new(kinds::Secret), ..ROW },
    Row {
        api: "v1", kind: "ServiceAccount", plural: "serviceaccounts", short_names: &["sa"],
        subresources: &[TOKEN], behaviour: || Arc::new(kinds::ServiceAccount), ..ROW
    },
    Row {
        api: "v1", kind: "Service", plural: "services", short_names: &["svc"], categories: ALL,
        subresources: &[SERVICE_PROXY, STATUS], behaviour: || Arc::new(kinds::Service), ..ROW
    },
];

const APIREGISTRATION: &[Row] = &[
    Row {
        api: "apiregistration.k8s.io/v1", kind: "APIService", plural: "apiservices",
        namespaced: false, categories: API_EXTENSIONS, subresources: &[STATUS], generation: true,
        behaviour: || Arc::new(kinds::ApiService), ..ROW
    },
];

const APPS: &[Row] = &[
    Row {
        api: "apps/v1", kind: "ControllerRevision", plural: "controllerrevisions",
        behaviour: || Arc::new(kinds::ControllerRevision), ..ROW
    },
    Row {
        api: "apps/v1", kind: "DaemonSet", plural: "daemonsets", short_names: &["ds"],
        categories: ALL, subresources: &[STATUS], generation: true,
        behaviour: || Arc::new(kinds::DaemonSet), ..ROW
    },
    Row {
        api: "apps/v1", kind: "Deployment", plural: "deployments", short_names: &["deploy"],
        categories: ALL, subresources: &[SCALE, STATUS], generation: true,
        behaviour: || Arc::new(kinds::Deployment), ..ROW
    },
    Row {
        api: "apps/v1", kind: "ReplicaSet", plural: "replicasets", short_names: &["rs"],
        categories: ALL, subresources: &[SCALE, STATUS], generation: true,
        behaviour: || Arc::new(kinds::ReplicaSet), ..ROW
    },
    Row {
        api: "apps/v1", kind: "StatefulSet", plural: "statefulsets", short_names: &["sts"],
        categories: ALL, subresources: &[SCALE, STATUS], generation: true,
        behaviour: || Arc::new(kinds::StatefulSet), ..ROW
    },
];

const EVENTS: &[Row] = &[
    Row {
        api: "events.k8s.io/v1", kind: "Event", plural: "events", short_names: &["ev"],
        stored_api: "v1", behaviour: || Arc::new(kinds::Event), ..ROW
    },
];

/// Answered by the nodes, kept nowhere.
const METRICS: &[Row] = &[
    Row {
        api: "metrics.k8s.io/v1beta1", kind: "NodeMetrics", plural: "nodes", namespaced: false,
        verbs: &["get", "list"], ..ROW
    },
    Row { api: "metrics.k8s.io/v1beta1", kind: "PodMetrics", plural: "pods", verbs: &["get", "list"], ..ROW },
];

const AUTHENTICATION: &[Row] = &[
    Row {
        api: "authentication.k8s.io/v1", kind: "SelfSubjectReview", plural: "selfsubjectreviews",
        namespaced: false, verbs: CREATE, ..ROW
    },
    Row {
        api: "authentication.k8s.io/v1", kind: "TokenReview", plural: "tokenreviews",
        namespaced: false, verbs: CREATE, ..ROW
    },
];

const AUTHORIZATION: &[Row] = &[
    Row {
        api: "authorization.k8s.io/v1", kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews", verbs: CREATE, ..ROW
    },
    Row {
       
        api: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview", plural: "selfsubjectaccessreviews",
        namespaced: false, verbs: CREATE, ..ROW
    },
    Row {
       
        api: "authorization.k8s.io/v1", kind: "SelfSubjectRulesReview", plural: "selfsubjectrulesreviews",
        namespaced: false, verbs: CREATE, ..ROW
    },
    Row {
        api: "authorization.k8s.io/v1", kind: "SubjectAccessReview", plural: "subjectaccessreviews",
        namespaced: false, verbs: CREATE, ..ROW
    },
];

const AUTOSCALING_V2: &[Row] = &[
    Row {
        api: "autoscaling/v2", kind: "HorizontalPodAutoscaler", plural: "horizontalpodautoscalers",
        short_names: &["hpa"], categories: ALL, subresources: &[STATUS],
        behaviour: || Arc::new(kinds::Autoscaler), ..ROW
    },
];

const AUTOSCALING_V1: &[Row] = &[
    Row {
        api: "autoscaling/v1", kind: "HorizontalPodAutoscaler", plural: "horizontalpodautoscalers",
        short_names: &["hpa"], categories: ALL, subresources: &[STATUS],
        stored_api: "autoscaling/v2", behaviour: || Arc::new(kinds::AutoscalerV1), ..ROW
    },
];

const BATCH: &[Row] = &[
    Row {
        api: "batch/v1", kind: "CronJob", plural: "cronjobs", short_names: &["cj"], categories: ALL,
        subresources: &[STATUS], generation: true, behaviour: || Arc::new(kinds::CronJob), ..ROW
    },
    Row {
        api: "batch/v1", kind: "Job", plural: "jobs", categories: ALL, subresources: &[STATUS],
        generation: true, behaviour: || Arc::new(kinds::Job), ..ROW
    },
];

const CERTIFICATES: &[Row] = &[
    Row {
        api: "certificates.k8s.io/v1", kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests", namespaced: false, short_names: &["csr"],
        subresources: &[APPROVAL, STATUS], behaviour: || Arc::new(kinds::CertificateSigningRequest),
        ..ROW
    },
];

const NETWORKING: &[Row] = &[
    Row {
        api: "networking.k8s.io/v1", kind: "IngressClass", plural: "ingressclasses",
        namespaced: false, generation: true, behaviour: || Arc::new(kinds::IngressClass), ..ROW
    },
    Row {
        api: "networking.k8s.io/v1", kind: "Ingress", plural: "ingresses", short_names: &["ing"],
        subresources: &[STATUS], generation: true, behaviour: || Arc::new(kinds::Ingress), ..ROW
    },
    Row {
        api: "networking.k8s.io/v1", kind: "IPAddress", plural: "ipaddresses", namespaced: false,
        short_names: &["ip"], generation: true, behaviour: || Arc::new(kinds::IpAddress), ..ROW
    },
    Row {
        api: "networking.k8s.io/v1", kind: "NetworkPolicy", plural: "networkpolicies",
        short_names: &["netpol"], generation: true, behaviour: || Arc::new(kinds::NetworkPolicy),
        ..ROW
    },
    Row {
        api: "networking.k8s.io/v1", kind: "ServiceCIDR", plural: "servicecidrs", namespaced: false,
        subresources: &[STATUS], generation: true, behaviour: || Arc::new(kinds::ServiceCidr),
        ..ROW
    },
];

const POLICY: &[Row] = &[
    Row {
        api: "policy/v1", kind: "PodDisruptionBudget", plural: "poddisruptionbudgets",
        short_names: &["pdb"], subresources: &[STATUS], generation: true,
        behaviour: || Arc::new(kinds::PodDisruptionBudget), ..ROW
    },
];

const RBAC: &[Row] = &[
    Row {
       
        api: "rbac.authorization.k8s.io/v1", kind: "ClusterRoleBinding", plural: "clusterrolebindings",
        namespaced: false, behaviour: || Arc::new(kinds::Binding { namespaced: false }), ..ROW
    },
    Row {
        api: "rbac.authorization.k8s.io/v1", kind: "ClusterRole", plural: "clusterroles",
        namespaced: false, behaviour: || Arc::new(kinds::ClusterRole), ..ROW
    },
    Row {
        api: "rbac.authorization.k8s.io/v1", kind: "RoleBinding", plural: "rolebindings",
        behaviour: || Arc::new(kinds::Binding { namespaced: true }), ..ROW
    },
    Row {
        api: "rbac.authorization.k8s.io/v1", kind: "Role", plural: "roles",
        behaviour: || Arc::new(kinds::Role), ..ROW
    },
];

const STORAGE: &[Row] = &[
    Row {
        api: "storage.k8s.io/v1", kind: "CSIDriver", plural: "csidrivers", namespaced: false,
        behaviour: || Arc::new(kinds::CsiDriver), ..ROW
    },
    Row {
        api: "storage.k8s.io/v1", kind: "CSINode", plural: "csinodes", namespaced: false,
        behaviour: || Arc::new(kinds::CsiNode), ..ROW
    },
    Row {
        api: "storage.k8s.io/v1", kind: "CSIStorageCapacity", plural: "csistoragecapacities",
        behaviour: || Arc::new(kinds::CsiStorageCapacity), ..ROW
    },
    Row {
        api: "storage.k8s.io/v1", kind: "StorageClass", plural: "storageclasses", namespaced: false,
        short_names: &["sc"], behaviour: || Arc::new(kinds::StorageClass), ..ROW
    },
    Row {
        api: "storage.k8s.io/v1", kind: "VolumeAttachment", plural: "volumeattachments",
        namespaced: false, subresources: &[STATUS], behaviour: || Arc::new(kinds::VolumeAttachment),
        ..ROW
    },
    Row {
        api: "storage.k8s.io/v1", kind: "VolumeAttributesClass", plural: "volumeattributesclasses",
        namespaced: false, short_names: &["vac"],
        behaviour: || Arc::new(kinds::VolumeAttributesClass), ..ROW
    },
];

const ADMISSIONREGISTRATION: &[Row] = &[
    Row {
        api: "admissionregistration.k8s.io/v1", kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies", namespaced: false, categories: API_EXTENSIONS,
        generation: true, behaviour: || Arc::new(kinds::Policy { mutating: true }), ..ROW
    },
    Row {
        api: "admissionregistration.k8s.io/v1", kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings", namespaced: false, categories: API_EXTENSIONS,
        generation: true, behaviour: || Arc::new(kinds::PolicyBinding), ..ROW
    },
    Row {
        api: "admissionregistration.k8s.io/v1", kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations", namespaced: false, categories: API_EXTENSIONS,
        generation: true, behaviour: || Arc::new(kinds::Webhooks { mutating: true }), ..ROW
    },
    Row {
        api: "admissionregistration.k8s.io/v1", kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies", namespaced: false, categories: API_EXTENSIONS,
        subresources: &[STATUS], generation: true,
        behaviour: || Arc::new(kinds::Policy { mutating: false }), ..ROW
    },
    Row {
        api: "admissionregistration.k8s.io/v1", kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings", namespaced: false, categories: API_EXTENSIONS,
        generation: true, behaviour: || Arc::new(kinds::PolicyBinding), ..ROW
    },
    Row {
        api: "admissionregistration.k8s.io/v1", kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations", namespaced: false, categories: API_EXTENSIONS,
        generation: true, behaviour: || Arc::new(kinds::Webhooks { mutating: false }), ..ROW
    },
];

const APIEXTENSIONS: &[Row] = &[
    Row {
        api: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions", namespaced: false, short_names: &["crd", "crds"],
        categories: API_EXTENSIONS, subresources: &[STATUS], generation: true,
        behaviour: || Arc::new(kinds::CustomResourceDefinition), ..ROW
    },
];

const SCHEDULING: &[Row] = &[
    Row {
        api: "scheduling.k8s.io/v1", kind: "PriorityClass", plural: "priorityclasses",
        namespaced: false, short_names: &["pc"], generation: true,
        behaviour: || Arc::new(kinds::PriorityClass), ..ROW
    },
];

const COORDINATION: &[Row] = &[
    Row {
        api: "coordination.k8s.io/v1", kind: "Lease", plural: "leases",
        behaviour: || Arc::new(kinds::Lease), ..ROW
    },
];

const NODE: &[Row] = &[
    Row {
        api: "node.k8s.io/v1", kind: "RuntimeClass", plural: "runtimeclasses", namespaced: false,
        behaviour: || Arc::new(kinds::RuntimeClass), ..ROW
    },
];

const DISCOVERY: &[Row] = &[
    Row {
        api: "discovery.k8s.io/v1", kind: "EndpointSlice", plural: "endpointslices",
        generation: true, behaviour: || Arc::new(kinds::EndpointSlice), ..ROW
    },
];

const RESOURCE: &[Row] = &[
    Row {
        api: "resource.k8s.io/v1", kind: "DeviceClass", plural: "deviceclasses", namespaced: false,
        generation: true, behaviour: || Arc::new(kinds::NameAndAge), ..ROW
    },
    Row {
        api: "resource.k8s.io/v1", kind: "ResourceClaim", plural: "resourceclaims",
        subresources: &[STATUS], behaviour: || Arc::new(kinds::ResourceClaim), ..ROW
    },
    Row {
        api: "resource.k8s.io/v1", kind: "ResourceClaimTemplate", plural: "resourceclaimtemplates",
        behaviour: || Arc::new(kinds::ResourceClaimTemplate), ..ROW
    },
    Row {
        api: "resource.k8s.io/v1", kind: "ResourceSlice", plural: "resourceslices",
        namespaced: false, generation: true, behaviour: || Arc::new(kinds::ResourceSlice), ..ROW
    },
];

const FLOWCONTROL: &[Row] = &[
    Row {
        api: "flowcontrol.apiserver.k8s.io/v1", kind: "FlowSchema", plural: "flowschemas",
        namespaced: false, subresources: &[STATUS], generation: true,
        behaviour: || Arc::new(kinds::FlowSchema), ..ROW
    },
    Row {
        api: "flowcontrol.apiserver.k8s.io/v1", kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations", namespaced: false, subresources: &[STATUS],
        generation: true, behaviour: || Arc::new(kinds::PriorityLevel), ..ROW
    },
];

/// The project's own group.
const LIMPET: &[Row] = &[
    Row {
        api: "limpet.dev/v1", kind: "FleetRollout", plural: "fleetrollouts", short_names: &["fr"],
        categories: ALL, subresources: &[STATUS], generation: true,
        behaviour: || Arc::new(kinds::FleetRollout), ..ROW
    },
    Row {
        api: "limpet.dev/v1", kind: "NodePool", plural: "nodepools", namespaced: false, short_names: &["pool"],
        subresources: &[STATUS], generation: true, behaviour: || Arc::new(kinds::NodePool), ..ROW
    },
];
