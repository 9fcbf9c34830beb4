//! Values as PostgreSQL transfers them, and tasks in rows.

use sqlx::{
    Arguments as _, Row as _,
    postgres::{PgArguments, PgRow},
};
use time::OffsetDateTime;

use super::super::sql::{
    columns::{Kind, Value, array_literal},
    operations::fields,
    selection,
};
use crate::{Task, UserId, clock::Timestamp};

/// Several small numbers as an array literal.
fn small_literal(numbers: &[i16]) -> String {
    array_literal(numbers.iter().map(i16::to_string).collect::<Vec<_>>().iter().map(String::as_str))
}

/// Values as arguments of a statement.
pub(super) fn arguments<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    add_arguments(&mut arguments, values)?;
    Ok(arguments)
}

/// Adds values to the arguments of a statement.
pub(super) fn add_arguments<'a>(
    arguments: &mut PgArguments,
    values: impl IntoIterator<Item = Value<'a>>,
) -> Result<(), sqlx::Error> {
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(text.as_deref()),
            Value::Uuid(id) => arguments.add(id),
            Value::Bool(value) => arguments.add(value),
            Value::Small(number) => arguments.add(number),
            Value::Big(number) => arguments.add(number),
            Value::Time(time) => arguments.add(time.map(OffsetDateTime::from)),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Texts(texts) => arguments.add(texts),
            Value::Smalls(numbers) => arguments.add(numbers),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(())
}

/// Values as the texts that the database reads as them, for the function that runs a statement.
pub(in crate::store) fn texts<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Vec<Option<String>> {
    let text = |value| match value {
        Value::Text(text) => text.map(std::borrow::Cow::into_owned),
        Value::Uuid(id) => id.map(|id| id.to_string()),
        Value::Bool(value) => value.map(|value| value.to_string()),
        Value::Small(number) => number.map(|number| number.to_string()),
        Value::Big(number) => number.map(|number| number.to_string()),
        Value::Time(time) => time.map(time_text),
        // No statement with filters has any.
        Value::Bytes(_) => None,
        Value::Texts(texts) => texts.map(array_literal),
        Value::Smalls(numbers) => numbers.map(|numbers| small_literal(&numbers)),
    };
    values.into_iter().map(text).collect()
}

/// Those of the values that are not read from their texts, for the same function: the times in their places, and the
/// several texts that a change sets.
pub(super) fn times_and_set_texts(values: &[Value<'_>]) -> (Vec<Option<OffsetDateTime>>, Option<Vec<String>>) {
    let time = |value: &Value<'_>| match value {
        Value::Time(time) => time.map(OffsetDateTime::from),
        _ => None,
    };
    let set = values.iter().skip(selection::FIRST_SET - 1).find_map(|value| match value {
        Value::Texts(texts) => Some(texts.as_ref().map(|texts| texts.iter().map(|&text| text.to_owned()).collect())),
        _ => None,
    });
    (values.iter().map(time).collect(), set.flatten())
}

/// A time as the database reads it: before the year 1 comes 1 BC, which RFC 3339 calls 0000.
fn time_text(time: Timestamp) -> String {
    let text = time.to_string();
    match text.strip_prefix("0000") {
        Some(rest) => format!("0001{rest} BC"),
        None => text,
    }
}

/// The values of several rows as arrays, one for each column, after other arguments.
pub(super) fn arrays(
    mut arguments: PgArguments,
    rows: Vec<Vec<Value<'_>>>,
    kinds: &[Kind],
) -> Result<PgArguments, sqlx::Error> {
    let mut rows: Vec<_> = rows.into_iter().map(Vec::into_iter).collect();
    for kind in kinds {
        let column = rows.iter_mut().map(|row| row.next().unwrap_or_else(|| Value::null(*kind)));
        macro_rules! array {
            ($variant:ident, $convert:expr) => {{
                let values = column.map(|value| match value {
                    Value::$variant(value) => $convert(value),
                    _ => None,
                });
                arguments.add(values.collect::<Vec<_>>())
            }};
        }
        let added = match kind {
            Kind::Text => array!(Text, |text| text),
            Kind::Uuid => array!(Uuid, |id| id),
            Kind::Bool => array!(Bool, |value| value),
            Kind::Small => array!(Small, |number| number),
            Kind::Big => array!(Big, |number| number),
            Kind::Time => array!(Time, |time: Option<Timestamp>| time.map(OffsetDateTime::from)),
            Kind::Texts => array!(Texts, |texts: Option<Vec<&str>>| texts.map(array_literal)),
            Kind::Smalls => array!(Smalls, |numbers: Option<Vec<i16>>| numbers.map(|numbers| small_literal(&numbers))),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// A time as it is transferred: microseconds since 2000. Read directly, since each row has several and a calendar date
/// would cost time.
fn time(row: &PgRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    const YEAR_2000: i64 = 946_684_800_000_000;
    let micros: Option<i64> = row.try_get_unchecked(column)?;
    Ok(micros.map(|micros| Timestamp::from_unix_micros(micros.saturating_add(YEAR_2000))))
}

fn text_array(row: &PgRow, column: usize) -> Result<Option<Vec<String>>, sqlx::Error> {
    row.try_get_unchecked(column)
}

/// The task in a row, from a column on.
pub(super) fn read_task(owner: &UserId, row: &PgRow, first: usize) -> Result<Task, sqlx::Error> {
    fields!(row, first, time, text_array).into_task(owner)
}
