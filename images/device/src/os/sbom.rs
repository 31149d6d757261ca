//! The bill of materials, as SPDX 2.3 in JSON.
//!
//! In: packages and binaries with their checksums, the licences of firmware. Out: a document that depends on nothing else. Pure.
//! Never: a time of this machine: the document's is the epoch of the build's inputs.

use super::packages::Package;
use serde_json::{Value, json};

/// `licences`: (package, its copyright file), for what is free to pass on and not free to change.
pub fn document(
    name: &str,
    version: &str,
    packages: &[&Package],
    binaries: &[(&str, String)],
    licences: &[(String, Vec<u8>)],
) -> Value {
    let word = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let licence = |name: &str| match licences.iter().any(|(of, _)| of == name) {
        true => format!("LicenseRef-{}", word(name)),
        false => "NOASSERTION".into(),
    };
    let extracted: Vec<Value> = licences
        .iter()
        .map(|(name, text)| {
            json!({"licenseId": licence(name), "name": format!("copyright file of Debian's package {name}"),
                "extractedText": String::from_utf8_lossy(text)})
        })
        .collect();
    let debian = packages.iter().map(|p| {
        json!({
            "SPDXID": format!("SPDXRef-{}", word(&p.name)), "licenseDeclared": licence(&p.name),
            "name": p.name, "versionInfo": p.version, "supplier": "Organization: Debian",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
            "checksums": [{"algorithm": "SHA256", "checksumValue": p.sha256}],
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": format!("pkg:deb/debian/{}@{}?arch={}", p.name, p.version, p.architecture)}],
        })
    });
    let own = binaries.iter().map(|(binary, sum)| {
        json!({
            "SPDXID": format!("SPDXRef-{binary}"), "name": binary, "versionInfo": version, "supplier": "Organization: Limpet",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": false, "licenseDeclared": "Apache-2.0",
            "checksums": [{"algorithm": "SHA256", "checksumValue": sum}],
        })
    });
    let all: Vec<Value> = debian.chain(own).collect();
    let contained: Vec<Value> = all
        .iter()
        .map(|p| json!({"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": p["SPDXID"]}))
        .collect();
    let mut document = json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("limpet-os-{name}-{version}"),
        "documentNamespace": format!("urn:limpet:os:{name}:{version}"),
        "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: limpet"]},
        "packages": all, "relationships": contained,
    });
    if !extracted.is_empty() {
        document["hasExtractedLicensingInfos"] = extracted.into();
    }
    document
}
