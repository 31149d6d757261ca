//! What a pod is refused for, in Kubernetes' words: one line a rule, as the API server of 1.36 has it.
//!
//! In: changes of a small good pod. Out: fails where a pod gets through, or is refused in other words.

use serde_json::{Value, json};

use super::*;

/// Sets the value at a pointer, making objects and lists on the way.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut target = object;
    for step in pointer.split('/').skip(1) {
        target = match step.parse::<usize>() {
            Ok(at) => {
                if !target.is_array() {
                    *target = json!([]);
                }
                let list = target.as_array_mut().unwrap();
                while list.len() <= at {
                    list.push(Value::Null);
                }
                &mut list[at]
            }
            Err(_) => &mut target[step],
        };
    }
    *target = value;
}

fn refused(changes: &[(&str, Value)]) -> Vec<String> {
    let mut object = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {
        "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
    for (pointer, value) in changes {
        put(&mut object, &format!("/spec/{pointer}"), value.clone());
    }
    Pod.default(&mut object);
    Pod.validate_create(&object).iter().map(ToString::to_string).collect()
}

#[test]
fn choices() {
    let spread = json!({"maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "DoNotSchedule"});
    let mount = json!({"name": "v", "mountPath": "/x", "readOnly": true});
    // (pointer of the choice, path in the error, what is supported, what else has to be there)
    let cases: &[(&str, &str, &[&str], &[(&str, Value)])] = &[
        ("containers/0/imagePullPolicy", "containers[0].imagePullPolicy", &["Always", "IfNotPresent", "Never"], &[]),
        (
            "containers/0/terminationMessagePolicy",
            "containers[0].terminationMessagePolicy",
            &["FallbackToLogsOnError", "File"],
            &[],
        ),
        ("containers/0/restartPolicy", "containers[0].restartPolicy", &["Always", "Never", "OnFailure"], &[]),
        (
            "initContainers/0/restartPolicy",
            "initContainers[0].restartPolicy",
            &["Always", "Never", "OnFailure"],
            &[("initContainers/0", json!({"name": "i", "image": "i"}))],
        ),
        (
            "containers/0/restartPolicyRules/0/action",
            "containers[0].restartPolicyRules[0].action",
            &["Restart", "RestartAllContainers"],
            &[
                ("containers/0/restartPolicy", json!("Never")),
                ("containers/0/restartPolicyRules/0/exitCodes", json!({"operator": "In", "values": [1]})),
            ],
        ),
        (
            "containers/0/restartPolicyRules/0/exitCodes/operator",
            "containers[0].restartPolicyRules[0].exitCodes.operator",
            &["In", "NotIn"],
            &[
                ("containers/0/restartPolicy", json!("Never")),
                ("containers/0/restartPolicyRules/0", json!({"action": "Restart", "exitCodes": {"values": [1]}})),
            ],
        ),
        (
            "containers/0/resizePolicy/0/resourceName",
            "containers[0].resizePolicy",
            &["cpu", "memory"],
            &[("containers/0/resizePolicy/0/restartPolicy", json!("NotRequired"))],
        ),
        (
            "containers/0/resizePolicy/0/restartPolicy",
            "containers[0].resizePolicy",
            &["NotRequired", "RestartContainer"],
            &[("containers/0/resizePolicy/0/resourceName", json!("cpu"))],
        ),
        (
            "containers/0/securityContext/procMount",
            "containers[0].securityContext.procMount",
            &["Default", "Unmasked"],
            &[],
        ),
        (
            "containers/0/securityContext/seccompProfile/type",
            "containers[0].securityContext.seccompProfile.type",
            &["Localhost", "RuntimeDefault", "Unconfined"],
            &[],
        ),
        (
            "securityContext/appArmorProfile/type",
            "securityContext.appArmorProfile.type",
            &["Localhost", "RuntimeDefault", "Unconfined"],
            &[],
        ),
        (
            "securityContext/fsGroupChangePolicy",
            "securityContext.fsGroupChangePolicy",
            &["Always", "OnRootMismatch"],
            &[],
        ),
        (
            "securityContext/supplementalGroupsPolicy",
            "securityContext.supplementalGroupsPolicy",
            &["Merge", "Strict"],
            &[],
        ),
        (
            "securityContext/seLinuxChangePolicy",
            "securityContext.seLinuxChangePolicy",
            &["MountOption", "Recursive"],
            &[],
        ),
        ("os/name", "os.name", &["linux", "windows"], &[]),
        (
            "topologySpreadConstraints/0/nodeAffinityPolicy",
            "topologySpreadConstraints[0].nodeAffinityPolicy",
            &["Honor", "Ignore"],
            &[("topologySpreadConstraints/0", spread.clone())],
        ),
        (
            "topologySpreadConstraints/0/nodeTaintsPolicy",
            "topologySpreadConstraints[0].nodeTaintsPolicy",
            &["Honor", "Ignore"],
            &[("topologySpreadConstraints/0", spread)],
        ),
        (
            "volumes/0/image/pullPolicy",
            "volumes[0].image.pullPolicy",
            &["Always", "IfNotPresent", "Never"],
            &[("volumes/0", json!({"name": "v", "image": {"reference": "r"}}))],
        ),
        (
            "volumes/0/azureDisk/cachingMode",
            "volumes[0].azureDisk.cachingMode",
            &["None", "ReadOnly", "ReadWrite"],
            &[("volumes/0", json!({"name": "v", "azureDisk": {"diskName": "d", "diskURI": "https://d"}}))],
        ),
        (
            "volumes/0/ephemeral/volumeClaimTemplate/spec/accessModes/0",
            "volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes",
            &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"],
            &[(
                "volumes/0",
                json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests":
                    {"storage": "1Gi"}}}}}}),
            )],
        ),
        (
            "containers/0/volumeMounts/0/mountPropagation",
            "containers[0].volumeMounts[0].mountPropagation",
            &["Bidirectional", "HostToContainer", "None"],
            &[("containers/0/volumeMounts/0", mount.clone())],
        ),
        (
            "containers/0/volumeMounts/0/recursiveReadOnly",
            "containers[0].volumeMounts[0].recursiveReadOnly",
            &["Disabled", "Enabled", "IfPossible"],
            &[("containers/0/volumeMounts/0", mount)],
        ),
    ];
    for (pointer, path, choices, beside) in cases {
        let mut changes = beside.to_vec();
        changes.push((pointer, json!("x")));
        let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
        let expect = format!("spec.{path}: Unsupported value: \"x\": supported values: {}", quoted.join(", "));
        assert_eq!(refused(&changes), [expect], "{pointer}");
        for choice in *choices {
            changes.pop();
            changes.push((pointer, json!(choice)));
            let errors = refused(&changes);
            assert!(!errors.iter().any(|error| error.contains("Unsupported")), "{pointer} {choice}: {errors:?}");
        }
    }
}

#[test]
fn groups_of_pods_are_refused() {
    let said = refused(&[("schedulingGroup", json!({"podGroupName": "g"}))]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("spec.schedulingGroup: Forbidden: pods are placed one by one here"), "{said:?}");
}

/// (changes, what is said of them without the path's start)
#[test]
fn rules() {
    let cases: &[(&[(&str, Value)], &str)] = &[
        (
            &[("containers/0/envFrom/0", json!({}))],
            "containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            &[("containers/0/envFrom/0", json!({"secretRef": {}}))],
            "containers[0].envFrom[0].secretRef.name: Required value",
        ),
        (
            &[("containers/0/env/0", json!({"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.foo"}}}))],
            "containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.foo\": error converting \
             fieldPath: field label not supported: metadata.foo",
        ),
        (
            &[("containers/0/env/0", json!({"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name['a']"}}}))],
            "containers[0].env[0].valueFrom.fieldRef: Invalid value: \"metadata.name\": does not support subscript",
        ),
        (
            &[("containers/0/env/0", json!({"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}}))],
            "containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.disk\": supported \
             values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \
             \"requests.ephemeral-storage\", \"requests.memory\"",
        ),
        (
            &[("containers/0/env/0",
                json!({"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}))],
            "containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"2\": only divisor's values 1m and 1 \
             are supported with the cpu resource",
        ),
        (
            &[("containers/0/env/0", json!({"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f"}}}))],
            "containers[0].env[0].valueFrom.fileKeyRef.key: Required value",
        ),
        (
            &[("containers/0/env/0",
                json!({"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "/f", "key": "K"}}}))],
            "containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: \"/f\": must be a relative path",
        ),
        (
            &[("containers/0/volumeMounts/0", json!({"name": "v", "mountPath": "/x", "subPath": "a", "subPathExpr": "b"}))],
            "containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
        ),
        (
            &[("containers/0/volumeMounts/0", json!({"name": "v", "mountPath": "/x", "recursiveReadOnly": "Enabled"}))],
            "containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
        (
            &[("containers/0/volumeDevices/0", json!({"name": "w", "devicePath": "/dev/x"}))],
            "containers[0].volumeDevices[0].name: Not found: \"w\"",
        ),
        (
            &[("containers/0/volumeDevices/0", json!({"name": "v", "devicePath": "/dev/x"}))],
            "containers[0].volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of \
             PersistentVolumeClaim or Ephemeral for block mode",
        ),
        (
            &[("containers/0/resources", json!({"requests": {"example.com/a": "1"}}))],
            "containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            &[("containers/0/resources", json!({"requests": {"example.com/a": "1"}, "limits": {"example.com/a": "2"}}))],
            "containers[0].resources.requests: Invalid value: \"1\": must be equal to example.com/a limit of 2",
        ),
        (
            &[("containers/0/resources", json!({"limits": {"hugepages-2Mi": "4Mi"}}))],
            "containers[0].resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            &[("containers/0/resources", json!({"claims": [{"name": "k"}]}))],
            "containers[0].resources.claims[0].name: Not found: \"k\"",
        ),
        (
            &[("containers/0/livenessProbe", json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}))],
            "containers[0].livenessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of \
             alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        ),
        (
            &[("containers/0/readinessProbe", json!({"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 5}))],
            "containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
        ),
        (
            &[("containers/0/lifecycle", json!({"preStop": {"sleep": {"seconds": 31}}}))],
            "containers[0].lifecycle.preStop: Invalid value: 31: must be non-negative and less than \
             terminationGracePeriodSeconds (30)",
        ),
        (
            &[("containers/0/lifecycle", json!({"stopSignal": "SIGUSR1"}))],
            "containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
        ),
        (
            &[("containers/0/lifecycle", json!({"stopSignal": "SIGX"})), ("os", json!({"name": "linux"}))],
            "containers[0].lifecycle.stopSignal: Unsupported value: \"SIGX\"",
        ),
        (
            &[("containers/0/restartPolicyRules/0",
                json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}))],
            "containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ),
        (
            &[("containers/0/resizePolicy/0",
                json!({"resourceName": "cpu", "restartPolicy": "RestartContainer"})), ("restartPolicy", json!("Never"))],
            "containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is \
             'Never'",
        ),
        (
            &[("hostNetwork", json!(true)), ("containers/0/ports/0", json!({"containerPort": 80, "hostPort": 81}))],
            "containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true",
        ),
        (
            &[("containers/0/securityContext", json!({"privileged": true, "allowPrivilegeEscalation": false}))],
            "containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot \
             set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            &[("securityContext", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}))],
            "securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            &[("securityContext", json!({"sysctls": [{"name": "a b", "value": "1"}]}))],
            "securityContext.sysctls[0].name: Invalid value: \"a b\": must have at most 253 characters and match regex \
             ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ),
        (
            &[("securityContext", json!({"sysctls": [{"name": "net.a", "value": "1"}]})), ("hostNetwork", json!(true))],
            "securityContext.sysctls[0].name: Invalid value: \"net.a\": may not be specified when 'hostNetwork' is true",
        ),
        (
            &[("securityContext", json!({"supplementalGroups": [-1]}))],
            "securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            &[("shareProcessNamespace", json!(true)), ("hostPID", json!(true))],
            "securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be \
             enabled",
        ),
        (&[("hostUsers", json!(false)), ("hostPID", json!(true))], "hostPID: Forbidden: when `hostUsers` is false"),
        (
            &[("readinessGates/0/conditionType", json!("a b"))],
            "readinessGates[0].conditionType: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', \
             '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
             regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            &[("schedulingGates", json!([{"name": "a"}, {"name": "a"}]))],
            "schedulingGates[1]: Duplicate value: \"a\"",
        ),
        (
            &[("topologySpreadConstraints/0",
                json!({"maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}))],
            "topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if \
             whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
        ),
        (
            &[("affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0",
                json!({"key": "metadata.uid", "operator": "In", "values": ["a"]}))],
            "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: \
             Invalid value: \"metadata.uid\": not a valid field selector key",
        ),
        (
            &[("dnsPolicy", json!("None"))],
            "dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            &[("dnsConfig", json!({"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}))],
            "dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"1.1.1.2\",\"1.1.1.3\",\"1.1.1.4\"]: must not have more than 3 \
             nameservers",
        ),
        (&[("dnsConfig", json!({"options": [{}]}))], "dnsConfig.options[0]: Required value: must not be empty"),
        (
            &[("resourceClaims", json!([{"name": "r"}]))],
            "resourceClaims[0]: Invalid value: {\"name\":\"r\"}: must specify one of: `resourceClaimName`, \
             `resourceClaimTemplateName`",
        ),
        (
            &[("volumes/0", json!({"name": "v", "emptyDir": {"sizeLimit": "-1"}}))],
            "volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
        ),
        (
            &[("volumes/0", json!({"name": "v", "ephemeral": {}}))],
            "volumes[0].ephemeral.volumeClaimTemplate: Required value",
        ),
        (&[("volumes/0", json!({"name": "v", "iscsi": {"targetPortal": "a"}}))], "volumes[0].iscsi.iqn: Required value"),
        (&[("volumes/0", json!({"name": "v", "image": {}}))], "volumes[0].image.reference: Required value"),
        (
            &[("volumes/0", json!({"name": "v", "fc": {"targetWWNs": ["a"]}}))],
            "volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified",
        ),
        (
            &[("overhead", json!({"disk": "1"}))],
            "overhead.limits[disk]: Invalid value: \"disk\": must be a standard resource for containers",
        ),
    ];
    for (changes, expect) in cases {
        assert_eq!(refused(changes), [format!("spec.{expect}")], "{changes:?}");
    }
}

/// What looks odd and is fine.
#[test]
fn what_upstream_takes() {
    let cases: &[&[(&str, Value)]] = &[
        &[("imagePullSecrets", json!([{}]))],
        &[("volumes/0", json!({"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}}))],
        &[("dnsConfig", json!({"searches": [".", "a.example.", "_tcp.example"]}))],
        &[("containers/0/resources", json!({"limits": {"example.com/a": "1", "hugepages-2Mi": "2Mi", "cpu": "1"}}))],
        &[("containers/0/lifecycle", json!({"stopSignal": "SIGRTMIN+15"})), ("os", json!({"name": "linux"}))],
        &[("hostUsers", json!(false)), ("containers/0/securityContext", json!({"procMount": "Unmasked"}))],
        &[("securityContext", json!({"sysctls": [{"name": "net/ipv4.tcp_syncookies", "value": "1"}]}))],
    ];
    for changes in cases {
        assert_eq!(refused(changes), Vec::<String>::new(), "{changes:?}");
    }
}

#[test]
fn ephemeral_containers_have_less() {
    let mut old = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "emptyDir": {}}]}});
    Pod.default(&mut old);
    let with = |container: Value| {
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] = json!([container]);
        Pod.default(&mut new);
        let errors = Pod.validate_update(&new, &old, "ephemeralcontainers");
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(with(json!({"name": "e", "image": "i", "targetContainerName": "c", "tty": true, "stdin": true})),
        Vec::<String>::new());
    let at = "spec.ephemeralContainers[0]";
    for (container, expect) in [
        (json!({"name": "c", "image": "i"}), "name: Duplicate value: \"c\""),
        (json!({"name": "e"}), "image: Required value"),
        (json!({"name": "e", "image": "i", "targetContainerName": "x"}), "targetContainerName: Not found: \"x\""),
        (
            json!({"name": "e", "image": "i", "ports": [{"containerPort": 80}]}),
            "ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({"name": "e", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a"}]}),
            "volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ] {
        assert_eq!(with(container), [format!("{at}.{expect}")]);
    }
}
