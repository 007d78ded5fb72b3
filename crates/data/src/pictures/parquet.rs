//! Parquet files as Hugging Face keeps data sets of pictures in: a column of pictures (their files' bytes, by themselves or beside a
//! path), and one of words. Pictures stay in the file; the rows of a group are read when one of them is wanted.

use super::{Found, Place, Wording};
use crate::DataError;
use parquet::basic::{LogicalType, Type as Physical};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Groups of rows that are kept: each thread that reads in order has one.
const KEPT_GROUPS: usize = 8;

/// One file's pictures.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    /// The column of pictures.
    pictures: String,
    kept: Mutex<VecDeque<(usize, Group)>>,
}

/// The pictures of a group of rows; none where a row has none.
type Group = Arc<Vec<Option<ByteArray>>>;

/// The pictures of all files, in the order of the files and within them.
pub(super) fn list(files: &[PathBuf], wording: &Wording) -> Result<Vec<Found>, DataError> {
    let mut found = Vec::new();
    for file in files {
        found.extend(of_file(file, wording)?);
    }
    Ok(found)
}

fn of_file(path: &Path, wording: &Wording) -> Result<Vec<Found>, DataError> {
    let failed = |error: ParquetError| DataError::pictures(path, error.to_string());
    let reader = open(path).map_err(failed)?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = schema.get_fields();
    let Some(pictures) = columns.iter().find(|column| holds_pictures(column)) else {
        return Err(DataError::pictures(path, "there is no column of pictures"));
    };
    let named = |name: &&str| columns.iter().any(|column| column.name() == *name);
    let words = wording.columns().into_iter().find(named).map(str::to_owned);
    if words.is_none() && wording.caption.is_none() {
        let message = format!("there is no column {}", wording.columns().join(", or "));
        return Err(DataError::pictures(path, message));
    }
    let table = Arc::new(Table {
        path: path.to_owned(),
        pictures: pictures.name().to_owned(),
        kept: Mutex::default(),
    });
    let mut found = Vec::new();
    for group in 0..reader.num_row_groups() {
        let rows = reader.get_row_group(group).map_err(failed)?.metadata().num_rows() as usize;
        let captions = match &words {
            Some(words) => column(&reader, group, words).map_err(failed)?,
            None => vec![Field::Null; rows],
        };
        for (row, caption) in captions.into_iter().enumerate() {
            found.push(Found {
                name: format!("{} row {}", path.display(), found.len() + 1),
                place: Place::Row {
                    table: table.clone(),
                    group,
                    row,
                },
                caption: match caption {
                    Field::Str(text) => Some(text),
                    _ => None,
                },
            });
        }
    }
    Ok(found)
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, ParquetError> {
    SerializedFileReader::new(File::open(path)?)
}

/// Bytes that are no text, by themselves or with a path beside them.
fn holds_pictures(column: &Type) -> bool {
    if column.is_group() {
        let bytes = column.get_fields().iter().find(|part| part.name() == "bytes");
        return bytes.is_some_and(|part| part.is_primitive() && part.get_physical_type() == Physical::BYTE_ARRAY);
    }
    let is_text = column.get_basic_info().logical_type_ref() == Some(&LogicalType::String);
    column.get_physical_type() == Physical::BYTE_ARRAY && !is_text
}

/// One column of a group of rows.
fn column(reader: &SerializedFileReader<File>, group: usize, name: &str) -> Result<Vec<Field>, ParquetError> {
    let schema = reader.metadata().file_metadata().schema();
    let wanted = schema.get_fields().iter().filter(|column| column.name() == name);
    let projection = Type::group_type_builder(schema.name())
        .with_fields(wanted.cloned().collect())
        .build()?;
    let rows = reader.get_row_group(group)?;
    let rows = rows.get_row_iter(Some(projection))?;
    rows.map(|row| {
        Ok(row?
            .into_columns()
            .into_iter()
            .next()
            .map_or(Field::Null, |(_, field)| field))
    })
    .collect()
}

fn picture(field: Field) -> Option<ByteArray> {
    match field {
        Field::Bytes(bytes) => Some(bytes),
        Field::Group(row) => {
            let parts = row.into_columns();
            let bytes = parts.into_iter().find(|(name, _)| name == "bytes")?;
            picture(bytes.1)
        }
        _ => None,
    }
}

impl Table {
    /// The file of the picture in a row of a group.
    pub fn bytes(&self, group: usize, row: usize) -> Result<Vec<u8>, String> {
        let rows = self.group(group).map_err(|error| error.to_string())?;
        let bytes = rows.get(row).and_then(Option::as_ref);
        let bytes = bytes.ok_or("the row has no picture; where there is a path only, its file is not here")?;
        Ok(bytes.data().to_vec())
    }

    fn group(&self, number: usize) -> Result<Group, ParquetError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rows)) = kept().iter().find(|(kept, _)| *kept == number) {
            return Ok(rows.clone());
        }
        let rows = column(&open(&self.path)?, number, &self.pictures)?;
        let rows: Group = Arc::new(rows.into_iter().map(picture).collect());
        let mut kept = kept();
        kept.push_front((number, rows.clone()));
        kept.truncate(KEPT_GROUPS);
        Ok(rows)
    }
}
