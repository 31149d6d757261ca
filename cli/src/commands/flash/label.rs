//! A label for each card that was written.
//!
//! In: a board, what the card was told. Out: DIR/NAME.svg. Never: the token's secret, which is not for everybody's eyes.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use limpet_device::{Board, label::Label, provision::Wish};
use std::path::Path;

pub fn write(dir: &Path, board: &Board, wish: &Wish) -> Result<(), String> {
    let path = dir.join(format!("{}.svg", wish.node_name));
    let told = |e: std::io::Error| format!("the label {}: {e}", path.display());
    std::fs::create_dir_all(dir).map_err(told)?;
    std::fs::write(&path, of(board, wish).svg()?).map_err(told)?;
    println!("{}: the card's label", path.display());
    Ok(())
}

fn of(board: &Board, wish: &Wish) -> Label {
    let mut rows = vec![("node", wish.node_name.clone()), ("board", board.title.clone())];
    if let Some((hub, id)) = wish.token.as_deref().and_then(public) {
        rows.extend([("hub", hub), ("token", id)]);
    }
    Label { rows }
}

/// Of a token: the first hub that it names, and its public name.
fn public(token: &str) -> Option<(String, String)> {
    let json = URL_SAFE_NO_PAD.decode(token.strip_prefix("limpet1.")?).ok()?;
    let content: serde_json::Value = serde_json::from_slice(&json).ok()?;
    Some((content["hubs"][0].as_str()?.to_string(), content["id"].as_str()?.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_the_hub_and_tells_no_secret() {
        let token = serde_json::json!({"hubs": ["10.0.0.1:6443"], "ca_sha256": "a", "id": "4f2a", "secret": "s3cr3t"});
        let token = format!("limpet1.{}", URL_SAFE_NO_PAD.encode(token.to_string()));
        let board = limpet_device::board::find("qemu-arm64").unwrap();
        let wish = Wish { node_name: "rock".into(), token: Some(token.clone()), ..Wish::default() };
        let text = of(&board, &wish).text();
        assert_eq!(text, format!("node: rock\nboard: {}\nhub: 10.0.0.1:6443\ntoken: 4f2a\n", board.title));
        let svg = of(&board, &wish).svg().unwrap();
        assert!(!svg.contains("s3cr3t") && !svg.contains(&token));
        let none = Wish { token: None, ..wish };
        assert_eq!(of(&board, &none).rows.len(), 2);
    }
}
