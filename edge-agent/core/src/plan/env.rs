//! A container's environment: Services, `envFrom`, `env`, and the image's own.
//!
//! In: the container, the desired set. Out: variables in the order in which kubelet gives them, or why not.
//! Never: an invalid name from a ConfigMap; such keys are passed over as kubelet does.

use super::{expand::expand, fields};
use super::{Context, env_files, field_value, resource_value};
use crate::{
    api::{ConfigMap, Container, EnvSource, EnvVar, KeyRef, Secret},
    services,
    sync::Items,
};
use limpet_protocol::ItemKind;
use std::collections::BTreeMap;

/// The variables that the manifest gives, values expanded. The error is kubelet's sentence.
pub fn build(
    context: &Context<'_>,
    items: &Items,
    container: &Container,
) -> Result<Vec<(String, String)>, String> {
    let pod = context.pod;
    let namespace = &pod.metadata.namespace;
    let links = pod.spec.enable_service_links.unwrap_or(true);
    let service_env = services::environment(items, namespace, links, context.host.api.as_ref());
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    from_sources(items, namespace, container, &mut known)?;
    let mut result: Vec<(String, String)> = known.clone().into_iter().collect();
    for var in &container.env {
        let mut scope = service_env.clone();
        scope.extend(known.clone());
        if let Some(value) = value_of(context, items, container, var, &scope)? {
            known.insert(var.name.clone(), value.clone());
            result.retain(|(name, _)| *name != var.name);
            result.push((var.name.clone(), value));
        }
    }
    result.extend(service_env.into_iter().filter(|(name, _)| !known.contains_key(name)));
    Ok(result)
}

fn from_sources(
    items: &Items,
    namespace: &str,
    container: &Container,
    known: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    for source in &container.env_from {
        let entries: Vec<(String, Vec<u8>)> = if let Some(reference) = &source.config_map_ref {
            match items.read::<ConfigMap>(ItemKind::ConfigMap, namespace, &reference.name) {
                Some(map) => map.data.into_iter().map(|(k, v)| (k, v.into_bytes())).collect(),
                None if reference.optional => continue,
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        } else if let Some(reference) = &source.secret_ref {
            match items.read::<Secret>(ItemKind::Secret, namespace, &reference.name) {
                Some(secret) => secret.entries().into_iter().map(|(k, v)| (k.to_string(), v)).collect(),
                None if reference.optional => continue,
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        } else {
            continue;
        };
        for (key, value) in entries {
            let name = format!("{}{key}", source.prefix);
            if valid_name(&name) {
                known.insert(name, String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    Ok(())
}

/// Printable ASCII without `=`, as relaxed environment variable names are.
fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=')
}

fn value_of(
    context: &Context<'_>,
    items: &Items,
    container: &Container,
    var: &EnvVar,
    scope: &[(String, String)],
) -> Result<Option<String>, String> {
    match (&var.value, &var.value_from) {
        (Some(value), _) if !value.is_empty() => Ok(Some(expand(value, scope))),
        (_, Some(source)) => from_source(context, items, container, source),
        _ => Ok(Some(String::new())),
    }
}

fn from_source(
    context: &Context<'_>,
    items: &Items,
    container: &Container,
    source: &EnvSource,
) -> Result<Option<String>, String> {
    let namespace = &context.pod.metadata.namespace;
    if let Some(field) = &source.field_ref {
        let path = &field.field_path;
        return match field_value(context, path) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("unsupported fieldPath: {path}")),
        };
    }
    if let Some(wanted) = &source.resource_field_ref {
        let name = wanted.container_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(&container.name);
        let named = fields::container_named(context.pod, name)
            .ok_or_else(|| format!("container {name} not found"))?;
        let value = resource_value((context.pod, context.host), named, wanted);
        return value.map(Some).ok_or_else(|| format!("unsupported container resource : {}", wanted.resource));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let map = items.read::<ConfigMap>(ItemKind::ConfigMap, namespace, &reference.name);
        let found = map.map(|m| m.data.get(&reference.key).cloned());
        return key_of(found, reference, ("configmap", "ConfigMap"), namespace);
    }
    if let Some(reference) = &source.secret_key_ref {
        let secret = items.read::<Secret>(ItemKind::Secret, namespace, &reference.name);
        let text = |v: &Vec<u8>| String::from_utf8_lossy(v).into_owned();
        let found = secret.map(|s| s.entries().get(reference.key.as_str()).map(text));
        return key_of(found, reference, ("secret", "Secret"), namespace);
    }
    if let Some(reference) = &source.file_key_ref {
        return env_files::value(&context.pod.spec, context.env_files, reference);
    }
    Ok(Some(String::new()))
}

/// `found`: the object (outer) and its key (inner).
fn key_of(
    found: Option<Option<String>>,
    reference: &KeyRef,
    (lower, upper): (&str, &str),
    namespace: &str,
) -> Result<Option<String>, String> {
    match found {
        Some(Some(value)) => Ok(Some(value)),
        _ if reference.optional => Ok(None),
        None => Err(format!("{lower} \"{}\" not found", reference.name)),
        Some(None) => {
            Err(format!("couldn't find key {} in {upper} {namespace}/{}", reference.key, reference.name))
        }
    }
}

/// As containerd: the pod's name for itself, the image's variables, the manifest's; the later ones count. PATH always exists.
pub fn merge_image(image: &[String], own: &[(String, String)], hostname: &str) -> Vec<(String, String)> {
    let mut merged: Vec<(String, String)> = Vec::with_capacity(image.len() + own.len() + 2);
    let from_image = image.iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.into(), v.into()));
    let host = std::iter::once(("HOSTNAME".to_string(), hostname.to_string()));
    for (name, value) in host.chain(from_image).chain(own.iter().cloned()) {
        match merged.iter_mut().find(|(n, _)| *n == name) {
            Some(slot) => slot.1 = value,
            None => merged.push((name, value)),
        }
    }
    if !merged.iter().any(|(n, _)| n == "PATH") {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        merged.insert(0, ("PATH".into(), path.into()));
    }
    merged
}
