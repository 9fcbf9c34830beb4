//! Fields of a task that belong to clients and hosts.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};

use super::invalid_value::InvalidValue;
use crate::json::{Json, Number};

/// Fields of a task that belong to the client or the host: a JSON object, which this library never looks into.
///
/// As JSON it has at most 4096 bytes and 8 levels. Numbers are those of `i64`, `u64` and finite `f64`; no object has two
/// members of the same name. Members are sorted by name, so that the bytes are the same in every store.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use todo_core::Metadata;
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Invoice {
///     number: u32,
/// }
///
/// let metadata = Metadata::from_value(&Invoice { number: 7 })?;
/// assert_eq!(metadata.as_str(), r#"{"number":7}"#);
/// assert_eq!(metadata.get::<Invoice>()?, Invoice { number: 7 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// The maximum number of bytes as JSON.
    pub const MAX_BYTES: usize = 4096;
    /// The maximum number of levels of arrays and objects, of which the object itself is the first.
    pub const MAX_DEPTH: usize = 8;

    /// Reads a JSON object.
    ///
    /// # Errors
    ///
    /// The text is not a JSON object, or one of the limits is exceeded.
    pub fn new(json: &str) -> Result<Self, InvalidValue> {
        Json::parse(json.as_bytes()).map_err(|_| InvalidValue::NotObject).and_then(|json| Self::from_json(&json))
    }

    /// Makes metadata of a value that serializes as an object.
    ///
    /// # Errors
    ///
    /// It serializes as something else, or one of the limits is exceeded.
    pub fn from_value(value: &impl Serialize) -> Result<Self, InvalidValue> {
        serde_json::to_string(value).map_err(|_| InvalidValue::NotObject).and_then(|json| Self::new(&json))
    }

    pub(crate) fn from_json(json: &Json) -> Result<Self, InvalidValue> {
        let Json::Object(_) = json else { return Err(InvalidValue::NotObject) };
        let mut text = String::new();
        write(&mut text, json, 1)?;
        Ok(Self(text.into()))
    }

    /// Makes metadata of what a store has kept, without checks.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn from_stored(json: impl Into<Box<str>>) -> Self {
        Self(json.into())
    }

    /// Returns the object as JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the object as a type of the host's. Members that the type does not have are ignored, if it is derived.
    ///
    /// # Errors
    ///
    /// A member is missing or has another type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// Returns what a merge patch (RFC 7396) makes of this object: members of the patch replace those of the object, null
    /// removes them, and objects are merged.
    ///
    /// # Errors
    ///
    /// One of the limits is exceeded.
    pub fn merged(&self, patch: &MetadataPatch) -> Result<Self, InvalidValue> {
        let mut json = Json::parse(self.0.as_bytes()).map_err(|_| InvalidValue::NotObject)?;
        merge(&mut json, &patch.0);
        Self::from_json(&json)
    }
}

/// A change of [`Metadata`]: a merge patch (RFC 7396) that is an object.
///
/// ```
/// use todo_core::{Metadata, MetadataPatch};
///
/// let metadata = Metadata::new(r#"{"color":"red","size":{"x":1}}"#)?;
/// let patch = MetadataPatch::new(r#"{"color":null,"size":{"y":2}}"#)?;
/// assert_eq!(metadata.merged(&patch)?.as_str(), r#"{"size":{"x":1,"y":2}}"#);
/// # Ok::<(), todo_core::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataPatch(Json);

impl MetadataPatch {
    /// Reads a JSON object.
    ///
    /// # Errors
    ///
    /// The text is not a JSON object; or what it adds is more than [`Metadata`] can be.
    pub fn new(json: &str) -> Result<Self, InvalidValue> {
        Json::parse(json.as_bytes()).map_err(|_| InvalidValue::NotObject).and_then(Self::from_json)
    }

    pub(crate) fn from_json(json: Json) -> Result<Self, InvalidValue> {
        Metadata::from_json(&json)?;
        Ok(Self(json))
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Json, patch: &Json) {
    let Json::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !matches!(target, Json::Object(_)) {
        *target = Json::Object(Vec::new());
    }
    let Json::Object(members) = target else { return };
    for (name, change) in changes {
        let at = members.iter().position(|(known, _)| known == name);
        match (change, at) {
            (Json::Null, Some(at)) => drop(members.remove(at)),
            (Json::Null, None) => {}
            (change, Some(at)) => merge(&mut members[at].1, change),
            (change, None) => {
                let mut value = Json::Null;
                merge(&mut value, change);
                members.push((name.clone(), value));
            }
        }
    }
}

/// Writes a value, and stops when a limit is exceeded.
fn write(text: &mut String, json: &Json, depth: usize) -> Result<(), InvalidValue> {
    if depth > Metadata::MAX_DEPTH && matches!(json, Json::Array(_) | Json::Object(_)) {
        return Err(InvalidValue::TooDeep { max: Metadata::MAX_DEPTH });
    }
    match json {
        Json::Null => text.push_str("null"),
        Json::Bool(true) => text.push_str("true"),
        Json::Bool(false) => text.push_str("false"),
        Json::Number(number) => number.write(text),
        Json::String(value) => write_text(text, value)?,
        Json::Array(values) => {
            text.push('[');
            for (number, value) in values.iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                write(text, value, depth + 1)?;
            }
            text.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err(InvalidValue::RepeatedMember);
            }
            text.push('{');
            for (number, (name, value)) in members.into_iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                write_text(text, name)?;
                text.push(':');
                write(text, value, depth + 1)?;
            }
            text.push('}');
        }
    }
    if text.len() > Metadata::MAX_BYTES {
        return Err(InvalidValue::TooManyBytes { max: Metadata::MAX_BYTES });
    }
    Ok(())
}

fn write_text(text: &mut String, value: &str) -> Result<(), InvalidValue> {
    // PostgreSQL could keep the escape of NUL as text; hosts that read the column as `jsonb` could not.
    if value.contains('\0') {
        return Err(InvalidValue::Nul);
    }
    text.push_str(&serde_json::to_string(value).map_err(|_| InvalidValue::NotObject)?);
    Ok(())
}

impl Default for Metadata {
    fn default() -> Self {
        Self("{}".into())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metadata").field(&self.0).finish()
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json::parse(self.0.as_bytes()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Json::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Number {
    fn write(self, text: &mut String) {
        match self {
            Self::Integer(number) => text.push_str(&number.to_string()),
            Self::Natural(number) => text.push_str(&number.to_string()),
            // The shortest text that is read as the same number.
            Self::Float(number) => text.push_str(&serde_json::to_string(&number).unwrap_or_else(|_| "0".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_object_has_one_text() {
        for (json, text) in [
            ("{}", "{}"),
            (" { \"b\" : 1 , \"a\" : [ 1.0, -0, 1e3, null, true ] } ", r#"{"a":[1.0,-0.0,1000.0,null,true],"b":1}"#),
            (
                r#"{"n":-9223372036854775808,"u":18446744073709551615}"#,
                r#"{"n":-9223372036854775808,"u":18446744073709551615}"#,
            ),
            (r#"{"é\n":"\u00e9\u0001"}"#, "{\"é\\n\":\"é\\u0001\"}"),
            (r#"{"x":0.1,"y":1e-7,"z":1.7976931348623157e308}"#, r#"{"x":0.1,"y":1e-7,"z":1.7976931348623157e+308}"#),
        ] {
            let metadata = Metadata::new(json).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert_eq!(metadata.as_str(), text);
            assert_eq!(Metadata::new(text), Ok(metadata.clone()), "the text is read as the same object");
            assert_eq!(serde_json::to_string(&metadata).expect("JSON"), text);
        }
    }

    #[test]
    fn limits_are_exact() {
        let padded = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        assert!(Metadata::new(&padded(4096)).is_ok());
        assert_eq!(Metadata::new(&padded(4097)), Err(InvalidValue::TooManyBytes { max: 4096 }));
        let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(Metadata::new(&nested(8)).is_ok());
        assert_eq!(Metadata::new(&nested(9)), Err(InvalidValue::TooDeep { max: 8 }));
        let members: Vec<_> = (0..10_000).map(|number| format!(r#""{number}":0"#)).collect();
        assert!(Metadata::new(&format!("{{{}}}", members.join(","))).is_err());
        for wrong in ["", "[]", "null", "1", r#"{"a":1e100000}"#, r#"{"a":NaN}"#] {
            assert_eq!(Metadata::new(wrong), Err(InvalidValue::NotObject), "{wrong}");
        }
        assert_eq!(Metadata::new(r#"{"a":{"b":1,"\u0062":2}}"#), Err(InvalidValue::RepeatedMember));
        assert_eq!(Metadata::new(r#"{"a\u0000":1}"#), Err(InvalidValue::Nul));
    }

    /// The examples of RFC 7396, appendix A, that are objects.
    #[test]
    fn patches_are_merged() {
        for (object, patch, merged) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let (object, patch) =
                (Metadata::new(object).expect("an object"), MetadataPatch::new(patch).expect("a patch"));
            assert_eq!(object.merged(&patch).expect("an object").as_str(), merged);
        }
        let half = Metadata::new(&format!(r#"{{"a":"{}"}}"#, "x".repeat(3000))).expect("an object");
        let other = MetadataPatch::new(&format!(r#"{{"b":"{}"}}"#, "x".repeat(3000))).expect("a patch");
        assert_eq!(half.merged(&other), Err(InvalidValue::TooManyBytes { max: 4096 }));
    }

    proptest! {
        #[test]
        fn numbers_keep_their_values(integer: i64, natural: u64, float in proptest::num::f64::NORMAL) {
            let json = format!(r#"{{"f":{float:?},"i":{integer},"n":{natural}}}"#);
            let read: serde_json::Value = Metadata::new(&json).expect("an object").get().expect("JSON");
            prop_assert_eq!(read["i"].as_i64(), Some(integer));
            prop_assert_eq!(read["n"].as_u64(), Some(natural));
            prop_assert_eq!(read["f"].as_f64(), Some(float));
        }
    }
}
