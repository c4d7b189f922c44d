//! A filter's parameters out of its table of a policy: every fault at once, each with its path.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ParamError;

/// The parameters, or every fault among them in the order of the keys.
///
/// `T` derives `Deserialize` with `deny_unknown_fields`, and every key it needs is an `Option`
/// that the filter checks itself: so one fault hides no other.
///
/// # Errors
/// One [`ParamError`] a fault, with the key's path (`read.mean`).
pub fn parse<T: DeserializeOwned>(params: &Value) -> Result<T, Vec<ParamError>> {
    match parse_known(params)? {
        (parsed, errors) if errors.is_empty() => Ok(parsed),
        (_, errors) => Err(errors),
    }
}

/// As [`parse`], for a filter that checks more than its keys' types: what can be read stands beside
/// the faults, so that the filter's own come with them.
///
/// # Errors
/// The faults, where nothing can be read.
pub fn parse_known<T: DeserializeOwned>(
    params: &Value,
) -> Result<(T, Vec<ParamError>), Vec<ParamError>> {
    let mut table = match params {
        Value::Object(table) => table.clone(),
        Value::Null => serde_json::Map::new(),
        other => return Err(vec![ParamError::new("", format!("expected a table, got {other}"))]),
    };
    let mut errors = Vec::new();
    loop {
        let fault = match serde_path_to_error::deserialize(&Value::Object(table.clone())) {
            Ok(parsed) => return Ok((parsed, errors)),
            Err(fault) => fault,
        };
        let path = fault.path().to_string();
        // What remains is tried again without the key that failed.
        let key = path.split(['.', '[']).next().unwrap_or("").to_owned();
        errors.push(ParamError::new(path, message(fault.inner())));
        if table.remove(&key).is_none() {
            return Err(errors);
        }
    }
}

/// serde's words where they are not ours: `unknown field ...` speaks of keys here.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if let Some((_, expected)) =
        text.split_once("`, ").filter(|_| text.starts_with("unknown field"))
    {
        return format!("unknown key: {}", expected.replace('`', ""));
    }
    if let Some((found, expected)) = text.split_once(", expected ") {
        let found = found.split_once(": ").map_or(found, |(_, found)| found);
        return format!("expected {}, got {}", expected.replace('`', "\""), plain(found));
    }
    text
}

/// `string "lots"` to `"lots"`, `integer `5`` to `5`.
fn plain(found: &str) -> String {
    let word = found
        .split_once(' ')
        .filter(|(kind, _)| ["string", "integer", "floating", "boolean", "unknown"].contains(kind));
    let value = word.map_or(found, |(_, value)| value);
    value.replace("point ", "").replace("variant ", "").replace('`', "")
}

/// JSON Schema of a filter's parameters, for the catalogue.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T);
    schema.remove("$schema");
    schema.remove("title");
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::units::{Positive, Size, Time};

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        mean: Option<Time>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Params {
        capacity: Option<Size>,
        inner: Option<Inner>,
        rate: Option<Positive>,
        colour: Option<Colour>,
        flag: Option<bool>,
    }

    fn faults(params: &Value) -> Vec<(String, String)> {
        let errors = parse::<Params>(params).unwrap_err();
        errors.into_iter().map(|e| (e.path, e.message)).collect()
    }

    #[test]
    fn all_faults_at_once_with_their_paths() {
        let got = faults(&json!({
            "capacity": "lots", "inner": {"mean": 5}, "rate": 0, "colour": "blue", "flag": "yes",
            "size": 3
        }));
        let expected = [
            ("capacity", "expected a size such as \"512MiB\", got \"lots\""),
            ("colour", "expected \"red\" or \"green\", got blue"),
            ("flag", "expected a boolean, got \"yes\""),
            ("inner.mean", "expected a time such as \"100us\" or \"5s\", got 5"),
            ("rate", "expected a number above 0 such as 2000, got 0"),
            ("size", "unknown key: expected one of capacity, inner, rate, colour, flag"),
        ];
        assert_eq!(got.len(), expected.len(), "{got:?}");
        for (path, message) in expected {
            assert!(got.contains(&(path.to_owned(), message.to_owned())), "{path}: {got:?}");
        }
        assert_eq!(faults(&json!({"inner": {"man": "5s"}}))[0].0, "inner.man");
        assert_eq!(faults(&json!([1]))[0].0, "");
    }

    #[test]
    fn right_ones_come_through() {
        let parsed: Params =
            parse(&json!({"capacity": "1MiB", "inner": {"mean": "5s"}, "colour": "green"}))
                .unwrap();
        assert_eq!(parsed.capacity, Some(Size(1 << 20)));
        assert_eq!(parsed.inner.unwrap().mean, Some(Time(5_000_000_000)));
        assert!(matches!(parsed.colour, Some(Colour::Green)));
        let empty = parse::<Params>(&Value::Null).unwrap();
        assert!(empty.rate.is_none() && empty.flag.is_none());
        assert_eq!(schema_of::<Params>()["additionalProperties"], json!(false));
    }
}
