//! The `snapshot` object: which field stands where, and what the types are called. At most 1 MiB; the rest is read by what it says.

use serde_json::Value;

use super::V8Error;

/// Types of nodes or edges that are told apart.
const MAX_TYPES: usize = 200;

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) node_count: u64,
    pub(super) edge_count: u64,
    pub(super) node_stride: usize,
    /// Of type, name, id, self size, edge count.
    pub(super) node_positions: [usize; 5],
    pub(super) node_types: Vec<String>,
    pub(super) edge_stride: usize,
    /// Of type, name or index, target.
    pub(super) edge_positions: [usize; 3],
    pub(super) edge_types: Vec<String>,
    /// Of object, script, line, column; `None` when they are not four fields of that kind.
    pub(super) location_positions: Option<[usize; 4]>,
    /// The ordinal of the root.
    pub(super) root: u32,
}

impl Header {
    pub(super) fn parse(text: &[u8]) -> Result<Header, V8Error> {
        let value: Value = serde_json::from_slice(text).map_err(|error| V8Error::Header(error.to_string()))?;
        let meta = &value["meta"];
        let node_fields = words(&meta["node_fields"]);
        let edge_fields = words(&meta["edge_fields"]);
        let location_fields = words(&meta["location_fields"]);
        let node_positions = positions(&node_fields, ["type", "name", "id", "self_size", "edge_count"])?;
        let edge_positions = positions(&edge_fields, ["type", "name_or_index", "to_node"])?;
        let node_types = words(&meta["node_types"][node_positions[0]]);
        let edge_types = words(&meta["edge_types"][edge_positions[0]]);
        for (types, what) in [(&node_types, "node_types"), (&edge_types, "edge_types")] {
            if types.is_empty() || types.len() > MAX_TYPES {
                return Err(V8Error::Header(format!("{} {what}, expected 1 to {MAX_TYPES}", types.len())));
            }
        }
        let location_positions = positions(&location_fields, ["object_index", "script_id", "line", "column"]);
        let root_index = value["root_index"].as_u64().unwrap_or(0);
        Ok(Header {
            node_count: value["node_count"].as_u64().unwrap_or(0),
            edge_count: value["edge_count"].as_u64().unwrap_or(0),
            node_stride: node_fields.len(),
            node_positions,
            node_types,
            edge_stride: edge_fields.len(),
            edge_positions,
            edge_types,
            location_positions: location_positions.ok().filter(|_| location_fields.len() == 4),
            root: u32::try_from(root_index / node_fields.len() as u64).unwrap_or(u32::MAX),
        })
    }
}

/// The strings of an array; what is no string counts as an empty one, so that positions stay.
fn words(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

fn positions<const N: usize>(fields: &[String], wanted: [&str; N]) -> Result<[usize; N], V8Error> {
    let mut found = [0; N];
    for (position, name) in found.iter_mut().zip(wanted) {
        *position = fields
            .iter()
            .position(|field| field == name)
            .ok_or_else(|| V8Error::Header(format!("no field {name:?} among {fields:?}")))?;
    }
    Ok(found)
}
