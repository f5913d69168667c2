//! Not written yet.

use super::registry::Registry;

pub fn register(_r: &mut Registry) {}
