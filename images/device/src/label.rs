//! A label for a card: what is on it, for people and for a phone's camera.
//!
//! In: rows such as a node's name, its board, its hub. Out: an SVG with a QR code (ISO/IEC 18004) and the same as text.
//! Never: the join token, or anything else that opens a door: labels are seen by everybody.

use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write;

/// In units of the picture; a label of 62 × 29 mm has room for it.
const MODULE: i32 = 4;
const QUIET: i32 = 4;
const LINE: i32 = 22;
const TEXT_WIDTH: i32 = 420;
/// What a phone reads at arm's length.
const BYTES_MAX: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// (what, which), in the order in which they are shown.
    pub rows: Vec<(&'static str, String)>,
}

impl Label {
    /// As the code carries it: any phone shows it as it is.
    pub fn text(&self) -> String {
        self.rows.iter().map(|(what, which)| format!("{what}: {which}\n")).collect()
    }

    pub fn svg(&self) -> Result<String, String> {
        let text = self.text();
        if text.len() > BYTES_MAX {
            return Err(format!("{} bytes are too much for a label that a phone can read", text.len()));
        }
        let code = QrCode::encode_text(&text, QrCodeEcc::Medium).map_err(|e| format!("no label: {e}"))?;
        let side = (code.size() + 2 * QUIET) * MODULE;
        let mut path = String::new();
        for y in 0..code.size() {
            for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
                // Writing to a string does not fail.
                let _ = write!(path, "M{} {}h{MODULE}v{MODULE}h-{MODULE}z", (x + QUIET) * MODULE, (y + QUIET) * MODULE);
            }
        }
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {side}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<path d=\"{path}\"/>\n",
            side + TEXT_WIDTH
        );
        for (n, (what, which)) in (1..).zip(&self.rows) {
            let y = QUIET * MODULE + n * LINE;
            let which = plain(which);
            let font = "font-family=\"monospace\" font-size=\"16\"";
            let _ = writeln!(out, "<text x=\"{side}\" y=\"{y}\" {font}>{what} {which}</text>");
        }
        Ok(out + "</svg>\n")
    }
}

/// As text of XML.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label { rows: vec![("node", "greenhouse-1".into()), ("hub", "10.0.0.1:6443 <b>".into())] }
    }

    #[test]
    fn a_label_holds_what_it_shows() {
        assert_eq!(label().text(), "node: greenhouse-1\nhub: 10.0.0.1:6443 <b>\n");
        let svg = label().svg().unwrap();
        assert!(svg.contains(">node greenhouse-1</text>") && svg.contains("hub 10.0.0.1:6443 &lt;b&gt;</text>"), "{svg}");
        // The three eyes of the code, each with its dark frame of seven modules.
        let code = QrCode::encode_text(&label().text(), QrCodeEcc::Medium).unwrap();
        let at = |x: i32, y: i32| format!("M{} {}h", (x + QUIET) * MODULE, (y + QUIET) * MODULE);
        let last = code.size() - 7;
        for (x, y) in [(0, 0), (last, 0), (0, last)] {
            assert!((0..7).all(|n| svg.contains(&at(x + n, y)) && svg.contains(&at(x, y + n))));
            assert!(!svg.contains(&at(x + 1, y + 1)));
        }
        let long = Label { rows: vec![("node", "x".repeat(400))] };
        assert!(long.svg().unwrap_err().contains("too much"));
    }
}
