//! A formula over named values that takes in the formulas of values it reads: what every fusion is made of.
//!
//! What may be taken in is the caller's to know; here are only the expressions and the lists of what they read.

use crate::{Formula, Part};
use smallvec::SmallVec;

/// A formula and the values that it reads, each once.
#[derive(Clone, Debug)]
pub struct Merged<V> {
    formula: Formula,
    ins: SmallVec<[V; 8]>,
}

impl<V: Copy + PartialEq> Merged<V> {
    /// `formula` over `ins`. A value that stands twice becomes one input, one that the formula does not read none.
    pub fn new(formula: &Formula, ins: &[V]) -> Merged<V> {
        let mut own: SmallVec<[V; 8]> = SmallVec::new();
        let mut parts: SmallVec<[Part; 8]> = SmallVec::new();
        let mut plain = true;
        for (i, v) in ins.iter().enumerate() {
            let at = match own.iter().position(|w| w == v) {
                Some(at) => at,
                None if formula.uses(i) => {
                    own.push(*v);
                    own.len() - 1
                }
                None => 0,
            };
            plain &= at == i && own.len() > i;
            parts.push(Part::Input(at));
        }
        // A formula that reads nothing stays as it is: there is no input to stand for those that it names.
        if plain || own.is_empty() {
            return Merged { formula: formula.clone(), ins: ins.into() };
        }
        Merged { formula: formula.compose(own.len(), &parts), ins: own }
    }

    /// The values read, in the order of the formula's inputs.
    pub fn ins(&self) -> &[V] {
        &self.ins
    }

    pub fn formula(&self) -> &Formula {
        &self.formula
    }

    /// Computes input `at` by `inner` over `ins`, whose parameters follow the present ones. Where more than `most` values
    /// would be read, nothing changes and the result is false.
    pub fn absorb(&mut self, at: usize, inner: &Formula, ins: &[V], most: usize) -> bool {
        let mut all: SmallVec<[V; 8]> = self.ins.clone();
        all.remove(at);
        let mut places: SmallVec<[usize; 8]> = SmallVec::new();
        for v in ins {
            places.push(match all.iter().position(|w| w == v) {
                Some(place) => place,
                None => {
                    all.push(*v);
                    all.len() - 1
                }
            });
        }
        if all.len() > most {
            return false;
        }
        let parts: SmallVec<[Part; 8]> = (0..self.ins.len())
            .map(|i| match i.cmp(&at) {
                std::cmp::Ordering::Less => Part::Input(i),
                std::cmp::Ordering::Equal => Part::Formula(inner, &places),
                std::cmp::Ordering::Greater => Part::Input(i - 1),
            })
            .collect();
        self.formula = self.formula.compose(all.len(), &parts);
        self.ins = all;
        true
    }

    pub fn into_parts(self) -> (Formula, SmallVec<[V; 8]>) {
        (self.formula, self.ins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_once_and_unread_ones_vanish() {
        let f = Formula::build(3, &[], |a| a.x(0) * a.x(2));
        let merged = Merged::new(&f, &['p', 'q', 'p']);
        assert_eq!((merged.formula().text().as_str(), merged.ins()), ("square(x0)", &['p'][..]));
    }

    #[test]
    fn what_is_taken_in_shares_the_values() {
        let add = Formula::build(2, &["k"], |a| a.x(0) + a.x(1) * a.param("k"));
        let exp = Formula::build(1, &["s"], |a| (a.x(0) * a.param("s")).exp());
        let mut merged = Merged::new(&add, &['t', 'p']);
        assert!(!merged.absorb(0, &add, &['q', 'r'], 2));
        assert!(merged.absorb(0, &exp, &['p'], 2));
        assert_eq!(merged.ins(), ['p']);
        assert_eq!(merged.formula().params(), ["k", "s"]);
        assert_eq!(merged.formula().text(), "exp((x0 * s)) + (x0 * k)");
    }
}
