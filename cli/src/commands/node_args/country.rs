//! In which country a board will send, when nobody says it: where this machine is.
//!
//! In: this machine's time zone, its language. Out: two letters of ISO 3166, told on stderr. Never: a guess without a ground.

use limpet_device::provision::is_country;
use std::fs;

const ZONES: &str = "/usr/share/zoneinfo/zone.tab";

pub fn here() -> Result<String, String> {
    let zone = std::env::var("TZ").ok().filter(|z| z.contains('/')).or_else(zone);
    let by_zone = zone.as_deref().and_then(|zone| of_zone(&fs::read_to_string(ZONES).ok()?, zone));
    let language = ["LC_ALL", "LANG"].iter().find_map(|name| of_language(&std::env::var(name).ok()?));
    let Some((country, why)) = by_zone.map(|c| (c, "time zone")).or(language.map(|c| (c, "language"))) else {
        return Err("say with --wifi-country in which country the board is, such as DE: its radio stays silent otherwise".into());
    };
    eprintln!("Wi-Fi by the rules of {country}, for this machine's {why}; --wifi-country says another");
    Ok(country)
}

/// /etc/localtime is a link into the zones.
fn zone() -> Option<String> {
    let target = fs::read_link("/etc/localtime").ok()?;
    let text = target.to_str()?;
    text.split_once("zoneinfo/").map(|(_, zone)| zone.to_string())
}

/// A line: country, place, zone.
fn of_zone(zones: &str, zone: &str) -> Option<String> {
    let line = zones.lines().filter(|l| !l.starts_with('#')).find(|l| l.split('\t').nth(2) == Some(zone))?;
    line.split('\t').next().filter(|c| is_country(c)).map(str::to_string)
}

/// `de_DE.UTF-8`
fn of_language(value: &str) -> Option<String> {
    let country = value.split_once('_')?.1.get(..2)?;
    is_country(country).then(|| country.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_languages_name_countries() {
        let zones = "#code\nDE\t+5230+01322\tEurope/Berlin\tmost of Germany\nXX\t+0\tNo/Where\n";
        assert_eq!(of_zone(zones, "Europe/Berlin").as_deref(), Some("DE"));
        for zone in ["Etc/UTC", "No/Where", "", "Europe/Berlin\t"] {
            assert_eq!(of_zone(zones, zone), None, "{zone}");
        }
        assert_eq!(of_language("de_DE.UTF-8").as_deref(), Some("DE"));
        for language in ["C", "C.UTF-8", "en_", "en_XX", "en_\u{e9}"] {
            assert_eq!(of_language(language), None, "{language}");
        }
    }
}
