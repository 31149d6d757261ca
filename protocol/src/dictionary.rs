//! Words that messages between hub and agent are full of, known to both sides: the base for `squeeze`.
//!
//! In: nothing. Out: bytes. Part of the wire format from protocol version 2 on: a single changed byte is a new version,
//! because both sides copy out of it by position. What comes most often stands last, and in the order of canonical JSON.

use crate::squeeze::Prepared;

/// `WORDS` as the encoder wants them.
pub static PREPARED: Prepared = Prepared::new(WORDS);

/// Shapes of items, reports and Events.
pub const WORDS: &[u8] = concat!(
    // Secrets, Services, EndpointSlices, tokens.
    r#"{"apiVersion":"v1","data":{"password":"","username":"","tls.crt":"","tls.key":"",".dockerconfigjson":""},"kind":"#,
    r#""Secret","type":"Opaque"}kubernetes.io/dockerconfigjsonkubernetes.io/tls{"audience":"","expirationTimestamp":"","#,
    r#""token":"eyJhbGciOiJ{"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":[{"addresses":["10.42.""#,
    r#"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"","targetRef":{"kind":"Pod","name":"#,
    r#""","namespace":"default","uid":""}}],"kind":"EndpointSlice","metadata":{"labels":{"endpointslice.kubernetes.io/m"#,
    r#"anaged-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":""},"ports":[{"name":"http","port":808"#,
    r#"0,"protocol":"TCP"}]}{"apiVersion":"v1","kind":"Service","spec":{"clusterIP":"10.43.","clusterIPs":["10.43."],"i"#,
    r#"nternalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"name":"http","po"#,
    r#"rt":80,"protocol":"TCP","targetPort":8080}],"selector":{"app":""},"sessionAffinity":"None","type":"ClusterIP"}}"#,
    // Events.
    r#"{"apiVersion":"v1","count":1,"firstTimestamp":"2026-","involvedObject":{"apiVersion":"v1","fieldPath":"spec.cont"#,
    r#"ainers{}","kind":"Pod","name":"","namespace":"default","resourceVersion":"","uid":""},"kind":"Event","lastTimest"#,
    r#"amp":"2026-","message":"Successfully assignedPulling image \"Successfully pulled image \"Container image \" alre"#,
    r#"ady present on machineCreated container Started container Stopping container Back-off restarting failed containe"#,
    r#"r in pod Readiness probe failed: Liveness probe failed: HTTP probe failed with statuscode: ","metadata":{"name":"#,
    r#""","namespace":"default"},"reason":"Pulled","reason":"Created","reason":"Started","reason":"Killing","reason":"B"#,
    r#"ackOff","reason":"Unhealthy","source":{"component":"kubelet"},"type":"Normal""type":"Warning"}"#,
    // Node reports.
    r#"{"labels":{"beta.kubernetes.io/arch":"arm64","kubernetes.io/arch":"arm64","kubernetes.io/hostname":"","kubernete"#,
    r#"s.io/os":"linux"},"status":{"addresses":[{"address":"","type":"InternalIP"},{"address":"","type":"Hostname"}],"a"#,
    r#"llocatable":{"cpu":"4","ephemeral-storage":"","memory":"Ki","pods":"110"},"capacity":{"cpu":"4","ephemeral-stora"#,
    r#"ge":"","memory":"Ki","pods":"110"},"conditions":[{"message":"kubelet has sufficient memory available","reason":""#,
    r#"KubeletHasSufficientMemory","status":"False","type":"MemoryPressure"},{"message":"kubelet has no disk pressure","#,
    r#""reason":"KubeletHasNoDiskPressure","status":"False","type":"DiskPressure"},{"message":"kubelet has sufficient P"#,
    r#"ID available","reason":"KubeletHasSufficientPID","status":"False","type":"PIDPressure"},{"message":"kubelet is p"#,
    r#"osting ready status","reason":"KubeletReady","status":"True","type":"Ready"}],"images":[{"names":[""],"sizeBytes"#,
    r#"":}],"nodeInfo":{"architecture":"arm64","bootID":"","containerRuntimeVersion":"limpet://","kernelVersion":"","ku"#,
    r#"beProxyVersion":"","kubeletVersion":"v1.36.","machineID":"","operatingSystem":"linux","osImage":"Debian GNU/Linu"#,
    r#"x","systemUUID":""}}}"#,
    // Pods.
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{},"creationTimestamp":"2026-","deletionGracePeriodSec"#,
    r#"onds":30,"deletionTimestamp":"2026-","generateName":"","generation":1,"labels":{"app":"","app.kubernetes.io/name"#,
    r#"":"","pod-template-hash":""},"name":"","namespace":"default","ownerReferences":[{"apiVersion":"apps/v1","blockOw"#,
    r#"nerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"","uid":""}],"uid":""},"spec":{"containers":[{"a"#,
    r#"rgs":[""],"command":["sh","-c",""],"env":[{"name":"","value":""},{"name":"","valueFrom":{"fieldRef":{"apiVersion"#,
    r#"":"v1","fieldPath":"metadata.name"}}},{"name":"","valueFrom":{"configMapKeyRef":{"key":"","name":""}}},{"name":""#,
    r#"","valueFrom":{"secretKeyRef":{"key":"","name":""}}}],"image":"hub.limpet/","imagePullPolicy":"IfNotPresent","li"#,
    r#"venessProbe":{"failureThreshold":3,"httpGet":{"path":"/healthz","port":8080,"scheme":"HTTP"},"initialDelaySecond"#,
    r#"s":5,"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1},"name":"","ports":[{"containerPort":8080,"name""#,
    r#":"http","protocol":"TCP"}],"readinessProbe":{"resources":{"limits":{"cpu":"100m","memory":"64Mi"},"requests":{"c"#,
    r#"pu":"100m","memory":"64Mi"}},"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}"#,
    r#","readOnlyRootFilesystem":true,"runAsNonRoot":true,"runAsUser":1000},"terminationMessagePath":"/dev/termination-"#,
    r#"log","terminationMessagePolicy":"File","volumeMounts":[{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccou"#,
    r#"nt","name":"kube-api-access-","readOnly":true}]}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"hostNetw"#,
    r#"ork":true,"imagePullSecrets":[{"name":""}],"initContainers":[{"nodeName":"","preemptionPolicy":"PreemptLowerPrio"#,
    r#"rity","priority":0,"restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"serviceAcc"#,
    r#"ount":"default","serviceAccountName":"default","terminationGracePeriodSeconds":30,"tolerations":[{"effect":"NoEx"#,
    r#"ecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300},{"effect":"NoExecute",""#,
    r#"key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}],"volumes":[{"configMap":{"de"#,
    r#"faultMode":420,"name":""},"name":""},{"name":"kube-api-access-","projected":{"defaultMode":420,"sources":[{"serv"#,
    r#"iceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"items":[{"key":"ca.crt","path":"ca.cr"#,
    r#"t"}],"name":"kube-root-ca.crt"}},{"downwardAPI":{"items":[{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.n"#,
    r#"amespace"},"path":"namespace"}]}}]}}]}}"#,
    // Pod statuses.
    r#"{"conditions":[{"lastProbeTime":null,"lastTransitionTime":"2026-","status":"True","type":"PodReadyToStartContain"#,
    r#"ers"},{"lastProbeTime":null,"lastTransitionTime":"2026-","status":"True","type":"Initialized"},{"lastProbeTime":"#,
    r#"null,"lastTransitionTime":"2026-","message":"containers with unready status: []","reason":"ContainersNotReady",""#,
    r#"status":"False","type":"Ready"},{"lastProbeTime":null,"lastTransitionTime":"2026-","status":"True","type":"Conta"#,
    r#"inersReady"},{"lastProbeTime":null,"lastTransitionTime":"2026-","status":"True","type":"PodScheduled"}],"contain"#,
    r#"erStatuses":[{"containerID":"limpet://","image":"hub.limpet/","imageID":"sha256:","lastState":{"terminated":{"co"#,
    r#"ntainerID":"limpet://","exitCode":1,"finishedAt":"2026-","message":"","reason":"Error","startedAt":"2026-"}},"na"#,
    r#"me":"","ready":true,"restartCount":0,"started":true,"state":{"running":{"startedAt":"2026-"}}}],"hostIP":"","hos"#,
    r#"tIPs":[{"ip":""}],"observedGeneration":1,"phase":"Running","podIP":"10.42.","podIPs":[{"ip":"10.42."}],"qosClass"#,
    r#"":"BestEffort","startTime":"2026-"}"state":{"waiting":{"message":"back-off 10s restarting failed container=","re"#,
    r#"ason":"CrashLoopBackOff"}}"phase":"Pending""phase":"Succeeded""reason":"Completed""reason":"ContainerCreating""q"#,
    r#"osClass":"Burstable""qosClass":"Guaranteed""#,
    // ConfigMaps.
    r#"{"apiVersion":"v1","data":{"ca.crt":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"},"kind":"ConfigMa"#,
    r#"p","metadata":{"creationTimestamp":"2026-","name":"kube-root-ca.crt","namespace":"default","uid":""}}"#,
)
.as_bytes();
