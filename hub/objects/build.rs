//! Makes the schema table's data at build time.
//!
//! In: k8s-openapi's generated JSON schemas (types, required fields, descriptions), the facts under schema/ (list
//! types, merge keys, defaults, enums), and from the table of protobuf's fields which ones are no pointers.
//! Out: `definitions.z` (all but prose), `descriptions.z`, `fingerprint`
//! in OUT_DIR.
//! Never: fetches anything; descriptions never enter the repository.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use k8s_openapi::schemars::SchemaGenerator;
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Types that k8s-openapi does not have.
const MORE: &str = "schema/metrics-v1beta1.json";
const FACTS: [&str; 2] = ["schema/facts-1.36.json", "schema/facts-by-hand-1.36.json"];
/// Which fields of Go's structs are pointers, lists and maps (`?`, `*`, `%`); what is none of them always has a value.
const FIELDS: &str = "../src/api/protobuf/fields-1.36.txt";
/// Required, and left out all the same when they are empty.
const LEFT_OUT: [(&str, &str); 9] = [
    ("ValidatingAdmissionPolicyBindingSpec", "policyName"),
    ("TokenReviewSpec", "token"),
    ("ContainerRestartRule", "action"),
    ("ContainerRestartRuleOnExitCodes", "operator"),
    ("ImageVolumeStatus", "imageRef"),
    ("PodCertificateProjection", "keyType"),
    ("PodCertificateProjection", "signerName"),
    ("ParentReference", "name"),
    ("ParentReference", "resource"),
];
/// The project's own kinds, written by hand.
const OWN: &str = "schema/limpet-v1.json";
/// What decides over the text of the OpenAPI documents besides the data: part of their fingerprint.
const WRITERS: [&str; 3] = ["build.rs", "src/registry", "src/openapi"];

macro_rules! roots {
    ($generator:expr, $($module:ident)::+ : $($kind:ident),+ $(,)?) => {
        {
            use k8s_openapi::$($module)::+ as version;
            $( let _ = $generator.subschema_for::<version::$kind>(); )+
        }
    };
}

fn main() -> Result<(), Box<dyn Error>> {
    for path in FACTS.iter().chain(&WRITERS) {
        println!("cargo:rerun-if-changed={path}");
    }
    let mut generator = SchemaSettings::openapi3().into_generator();
    add_workloads(&mut generator);
    add_platform(&mut generator);
    add_meta(&mut generator);
    let mut definitions = generator.take_definitions(false);

    println!("cargo:rerun-if-changed={OWN}");
    let own: Map<String, Value> = serde_json::from_slice(&std::fs::read(OWN)?)?;
    definitions.extend(own);
    println!("cargo:rerun-if-changed={MORE}");
    definitions.extend(serde_json::from_slice::<Map<String, Value>>(&std::fs::read(MORE)?)?);
    let mut descriptions = Map::new();
    for (name, definition) in &mut definitions {
        take_descriptions(name, definition, &mut descriptions);
        shorten_refs(definition);
        free_metadata(definition);
    }
    for path in FACTS {
        println!("cargo:rerun-if-changed={path}");
        let facts: Map<String, Value> = serde_json::from_slice(&std::fs::read(path)?)?;
        add_facts(&mut definitions, &facts);
    }
    println!("cargo:rerun-if-changed={FIELDS}");
    add_zeros(&mut definitions, &std::fs::read_to_string(FIELDS)?);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let definitions = lines(&definitions);
    let descriptions = lines(&descriptions);
    std::fs::write(out.join("definitions.z"), deflate(definitions.as_bytes())?)?;
    std::fs::write(out.join("descriptions.z"), deflate(descriptions.as_bytes())?)?;
    std::fs::write(out.join("fingerprint"), fingerprint(definitions.as_bytes(), descriptions.as_bytes())?)?;
    Ok(())
}

fn add_workloads(g: &mut SchemaGenerator) {
    roots!(g, api::core::v1: Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
        PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret,
        Service, ServiceAccount);
    roots!(g, api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet);
    roots!(g, api::batch::v1: CronJob, Job);
    roots!(g, api::autoscaling::v1: HorizontalPodAutoscaler, Scale);
    roots!(g, api::autoscaling::v2: HorizontalPodAutoscaler);
    roots!(g, api::policy::v1: Eviction, PodDisruptionBudget);
    roots!(g, api::discovery::v1: EndpointSlice);
    roots!(g, api::networking::v1: IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR);
    roots!(g, api::events::v1: Event);
    roots!(g, api::scheduling::v1: PriorityClass);
    roots!(g, api::storage::v1: CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
        VolumeAttributesClass);
    roots!(g, api::resource::v1: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice);
    roots!(g, api::node::v1: RuntimeClass);
}

fn add_platform(g: &mut SchemaGenerator) {
    roots!(g, api::admissionregistration::v1: MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding,
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        ValidatingWebhookConfiguration);
    roots!(g, apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition);
    roots!(g, kube_aggregator::pkg::apis::apiregistration::v1: APIService);
    roots!(g, api::authentication::v1: SelfSubjectReview, TokenRequest, TokenReview);
    roots!(g, api::authorization::v1: LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
        SubjectAccessReview);
    roots!(g, api::certificates::v1: CertificateSigningRequest);
    roots!(g, api::coordination::v1: Lease);
    roots!(g, api::flowcontrol::v1: FlowSchema, PriorityLevelConfiguration);
    roots!(g, api::rbac::v1: ClusterRole, ClusterRoleBinding, Role, RoleBinding);
}

fn add_meta(g: &mut SchemaGenerator) {
    roots!(g, apimachinery::pkg::apis::meta::v1: APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions,
        ListMeta, ObjectMeta, Patch, Status);
    use k8s_openapi::apimachinery::pkg::{apis::meta::v1::WatchEvent, runtime::RawExtension};
    let _ = g.subschema_for::<WatchEvent<RawExtension>>();
}

fn take_descriptions(name: &str, definition: &mut Value, into: &mut Map<String, Value>) {
    let Some(definition) = definition.as_object_mut() else { return };
    if let Some(text) = definition.remove("description") {
        into.insert(name.to_owned(), text);
    }
    let properties = definition.get_mut("properties").and_then(Value::as_object_mut);
    for (property, schema) in properties.into_iter().flatten() {
        if let Some(text) = schema.as_object_mut().and_then(|schema| schema.remove("description")) {
            into.insert(format!("{name}#{property}"), text);
        }
    }
}

/// `{"allOf":[{"$ref":"#/components/schemas/X"}]}` becomes `{"$ref":"X"}`.
fn shorten_refs(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(only) = map.get("allOf").and_then(|all| all.as_array()).filter(|all| all.len() == 1)
                && let Some(reference) = only[0].get("$ref").cloned()
            {
                map.remove("allOf");
                map.insert("$ref".to_owned(), reference);
            }
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some((_, name)) = reference.rsplit_once('/')
            {
                *reference = name.to_owned();
            }
            map.values_mut().for_each(shorten_refs);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten_refs),
        _ => {}
    }
}

/// The typed structs always have metadata; in Kubernetes' schema it is optional.
fn free_metadata(definition: &mut Value) {
    let Some(definition) = definition.as_object_mut() else { return };
    if let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "metadata");
        if required.is_empty() {
            definition.remove("required");
        }
    }
}

fn add_facts(definitions: &mut Map<String, Value>, facts: &Map<String, Value>) {
    for (name, rows) in facts {
        let Some(definition) = definitions.get_mut(name) else { continue };
        for (property, found) in rows.as_object().into_iter().flatten() {
            let place = match property.as_str() {
                "" => Some(&mut *definition),
                property => definition.get_mut("properties").and_then(|all| all.get_mut(property)),
            };
            let Some(place) = place.and_then(Value::as_object_mut) else { continue };
            for (key, value) in found.as_object().into_iter().flatten() {
                add_fact(place, key, value);
            }
        }
    }
}

fn add_fact(place: &mut Map<String, Value>, key: &str, value: &Value) {
    match key {
        "default" => _ = place.insert("default".to_owned(), value.clone()),
        "required" if value.as_array().is_some_and(Vec::is_empty) => _ = place.remove("required"),
        "required" => _ = place.insert("required".to_owned(), value.clone()),
        "enum" => {
            let of = if place.contains_key("items") { place.get_mut("items") } else { None };
            match of.and_then(Value::as_object_mut) {
                Some(items) => items.insert("enum".to_owned(), value.clone()),
                None => place.insert("enum".to_owned(), value.clone()),
            };
        }
        _ => _ = place.insert(format!("x-kubernetes-{key}"), value.clone()),
    }
}

/// Fields that Go writes even when they are empty get their zero value as a default, as in upstream's documents: structs
/// that are no pointers, and required scalars.
fn add_zeros(definitions: &mut Map<String, Value>, fields: &str) {
    let mut package = "";
    for line in fields.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("= ") {
            package = name;
            continue;
        }
        let mut words = line.split(' ');
        let message = words.next().unwrap_or_default();
        let Some(definition) = definitions.get_mut(&format!("{package}.{message}")) else { continue };
        for word in words {
            let mut parts = word.splitn(3, ':').skip(1);
            if let (Some(name), Some(kind)) = (parts.next(), parts.next())
                && !LEFT_OUT.contains(&(message, name))
            {
                add_zero(definition, name, kind);
            }
        }
    }
}

/// Structs that are written as something else.
const NO_STRUCTS: [&str; 11] = [
    "Duration", "FieldsV1", "IntOrString", "JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray", "MicroTime", "Quantity", "RawExtension", "Time",
];

fn add_zero(definition: &mut Value, name: &str, kind: &str) {
    let required = definition.get("required").and_then(Value::as_array).is_some_and(|r| r.iter().any(|r| r == name));
    let zero = match kind {
        "s" if required => Value::from(""),
        "i" | "d" if required => Value::from(0),
        "b" if required => Value::from(false),
        "s" | "i" | "d" | "b" | "y" => return,
        kind if kind.starts_with(['?', '*', '%']) => return,
        kind if NO_STRUCTS.contains(&kind.rsplit(['.', '@']).next().unwrap_or_default()) => return,
        _ => Value::Object(Map::new()),
    };
    let place = definition.get_mut("properties").and_then(|all| all.get_mut(name)).and_then(Value::as_object_mut);
    if let Some(place) = place {
        place.entry("default").or_insert(zero);
    }
}

/// One line an entry, sorted by name: `name<TAB>JSON`. A reader parses only the entries that it needs.
fn lines(entries: &Map<String, Value>) -> String {
    let mut lines: Vec<String> = entries.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect();
    lines.sort();
    lines.concat()
}

fn deflate(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Changes whenever a served OpenAPI document may change: clients cache the documents by it.
fn fingerprint(definitions: &[u8], descriptions: &[u8]) -> Result<String, Box<dyn Error>> {
    let mut files = Vec::new();
    for path in WRITERS {
        collect(Path::new(path), &mut files)?;
    }
    files.sort();
    let mut text = String::new();
    for salt in 0..4u8 {
        let mut hasher = DefaultHasher::new();
        (salt, definitions, descriptions, std::env::var("CARGO_PKG_VERSION")?).hash(&mut hasher);
        for file in &files {
            std::fs::read(file)?.hash(&mut hasher);
        }
        text.push_str(&format!("{:016X}", hasher.finish()));
    }
    Ok(text)
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_file() {
        into.push(path.to_owned());
    } else if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            collect(&entry?.path(), into)?;
        }
    }
    Ok(())
}
