//! JSON values that keep duplicate members, so that they can be rejected. The values of `serde_json` keep only the last
//! duplicate. Parsers that keep different duplicates read different values from the same text, which attackers exploit.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses one value; text after it is an error. `serde_json` limits the nesting to 128 levels.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Returns the members if this is an object without duplicate members at any depth.
    pub(crate) fn into_unambiguous_object(self) -> Option<Vec<(String, Self)>> {
        if !self.is_unambiguous() {
            return None;
        }
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    fn is_unambiguous(&self) -> bool {
        match self {
            Self::Array(values) => values.iter().all(Self::is_unambiguous),
            Self::Object(members) => {
                let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
                names.sort_unstable();
                names.is_sorted_by(|a, b| a < b) && members.iter().all(|(_, value)| value.is_unambiguous())
            }
            _ => true,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => get(members, name),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

/// Returns the member with this name.
pub(crate) fn get<'a>(members: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "a JSON number is a double (RFC 8259, section 6)")]
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "a JSON number is a double (RFC 8259, section 6)")]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_members_are_found_at_any_depth() {
        let parse = |text: &str| Json::parse(text.as_bytes()).expect("JSON");
        assert!(parse(r#"{"a":1,"b":{"a":2}}"#).into_unambiguous_object().is_some());
        assert!(parse(r#"{"a":1,"a":1}"#).into_unambiguous_object().is_none());
        // The same name with an escape.
        assert!(parse(r#"{"a":1,"\u0061":1}"#).into_unambiguous_object().is_none());
        assert!(parse(r#"{"x":[{"a":1,"b":2,"a":3}]}"#).into_unambiguous_object().is_none());
        assert!(parse("[]").into_unambiguous_object().is_none());
    }

    #[test]
    fn invalid_json_is_rejected() {
        for wrong in ["", "{", r#"{"a":1}x"#, "{'a':1}", r#""\ud800""#, "\u{feff}{}", "NaN", "01", &"[".repeat(200)] {
            assert!(Json::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
    }
}
