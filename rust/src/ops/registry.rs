//! All operators by name.

use super::def::{OpBuilder, OpDef, OpRef};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Where families write their records.
#[derive(Default)]
pub struct Registry {
    ops: Vec<OpBuilder>,
}

impl Registry {
    /// Starts a record.
    pub fn op(&mut self, name: &'static str, doc: &'static str) -> &mut OpBuilder {
        self.ops.push(OpBuilder::new(name, doc));
        let last = self.ops.len() - 1;
        &mut self.ops[last]
    }

    /// A record begun before, to add to it.
    pub fn find_mut(&mut self, name: &str) -> &mut OpBuilder {
        match self.ops.iter().position(|b| b.0.name == name) {
            Some(i) => &mut self.ops[i],
            None => panic!("operator {name} is not registered yet"),
        }
    }
}

struct Table {
    ops: Vec<OpRef>,
    names: HashMap<&'static str, OpRef>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut registry = Registry::default();
        for family in super::FAMILIES {
            family(&mut registry);
        }
        let mut table = Table { ops: Vec::new(), names: HashMap::new() };
        for builder in registry.ops {
            let op: OpRef = Box::leak(Box::new(builder.0));
            table.ops.push(op);
            for name in std::iter::once(&op.name).chain(&op.aliases) {
                let before = table.names.insert(name, op);
                assert!(before.is_none(), "two operators are named {name}");
            }
        }
        table
    })
}

/// The operator of this name or alias.
pub fn find(name: &str) -> Option<OpRef> {
    table().names.get(name).copied()
}

/// The operator of this name, which the core itself relies on.
pub fn expect(name: &str) -> OpRef {
    find(name).unwrap_or_else(|| panic!("operator {name} is not registered"))
}

/// Every operator, in the order of the families.
pub fn all() -> &'static [OpRef] {
    &table().ops
}

/// Names of operators close to `name`, for messages.
pub fn similar(name: &str, limit: usize) -> Vec<&'static str> {
    closest(name, table().names.keys().copied().filter(|n| !n.starts_with('_')), limit)
}

/// The candidates within a small edit distance of `name`, nearest first.
pub fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    let budget = 1 + name.len() / 4;
    let mut found: Vec<(usize, &str)> =
        candidates.map(|c| (distance(name, c), c)).filter(|(d, _)| *d <= budget).collect();
    found.sort();
    found.into_iter().take(limit).map(|(_, c)| c).collect()
}

/// Levenshtein's distance, letters compared without case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// For derived tests and documentation: whether the record says enough.
pub fn problems(op: &OpDef) -> Vec<String> {
    let mut out = Vec::new();
    if op.doc.is_empty() {
        out.push(format!("{} has no documentation", op.name));
    }
    if op.samples.is_empty() && !op.hidden {
        out.push(format!("{} has no sample", op.name));
    }
    out
}
