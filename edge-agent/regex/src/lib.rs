//! The crate `regex` for everything that this workspace links: the container library checks three formats with it that
//! boards never meet, and for that the large engine with its tables of Unicode was a tenth of the agent.
//!
//! In: patterns of dependencies, all of them constants in ASCII. Out: matches; `\w`, `\d` and `\s` mean ASCII here.
//! Never: what people write (CEL's patterns, `hub/cel`); those go to the large engine by its own name, `regex-automata`.

pub use regex_lite::*;

#[cfg(test)]
mod tests {
    use super::Regex;

    /// The forms of patterns that the container library uses.
    #[test]
    fn formats_of_the_container_library_are_understood() {
        let line = r"^(?:L3|L3CODE):(?:\s|;)*(?:\w+\s*=\s*[[:xdigit:]]+)?(?:(?:\s*;+\s*)+\w+\s*=\s*[[:xdigit:]]+)*(?:\s|;)*$";
        let line = Regex::new(line).unwrap();
        assert!(line.is_match("L3: 0=ff ; 1 = 0f;") && !line.is_match("L3:0=fg") && !line.is_match("L2:0=ff"));
        let token = Regex::new(r"(\w+)\s*=\s*0*([[:xdigit:]]+)").unwrap();
        let tokens: Vec<[&str; 2]> = token.captures_iter("L3:0=00ff;1=f0").map(|c| c.extract().1).collect();
        assert_eq!(tokens, [["0", "ff"], ["1", "f0"]]);
        let cpus = Regex::new(r"^(\d+(-\d+)?)(,\d+(-\d+)?)*$").unwrap();
        assert!(cpus.is_match("0-3,7") && !cpus.is_match("0-") && !cpus.is_match("٣"));
    }
}
