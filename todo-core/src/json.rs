//! JSON values that keep duplicate members, so that they can be rejected. The values of `serde_json` keep only the last
//! duplicate. Parsers that keep different duplicates read different values from the same text, which attackers exploit.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// A number as it was written: a whole number keeps all its digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Integer(i64),
    /// Greater than the greatest `i64`.
    Natural(u64),
    Float(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "for readers to whom a number is a double (RFC 8259, section 6)")]
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Natural(number) => number as f64,
            Self::Float(number) => number,
        }
    }
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

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(Number::Integer(value)) => serializer.serialize_i64(*value),
            Self::Number(Number::Natural(value)) => serializer.serialize_u64(*value),
            Self::Number(Number::Float(value)) => serializer.serialize_f64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(values) => serializer.collect_seq(values),
            Self::Object(members) => serializer.collect_map(members.iter().map(|(name, value)| (name, value))),
        }
    }
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

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(Number::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(i64::try_from(value).map_or(Number::Natural(value), Number::Integer)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(Number::Float(value)))
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
