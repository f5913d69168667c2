//! A formula over numbered values that takes in the formulas of values it reads: what every fusion is made of.
//!
//! What may be taken in is the caller's to know; here are only the expressions, the lists of what they read, and who is
//! the only reader of what.

use crate::{Formula, Part};
use smallvec::SmallVec;

/// The number of a value.
type Id = u32;

/// What one merged formula may read and carry.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    pub inputs: usize,
    pub params: usize,
}

impl Default for Most {
    /// Each array is a stream that the memory system follows; numbers travel with every call.
    fn default() -> Most {
        Most { inputs: 12, params: 64 }
    }
}

/// A formula and the values that it reads, each once.
#[derive(Clone, Debug)]
pub struct Merged {
    formula: Formula,
    ins: SmallVec<[Id; 8]>,
}

impl Merged {
    /// `formula` over `ins`. A value that stands twice becomes one input, one that the formula does not read none.
    pub fn new(formula: &Formula, ins: &[Id]) -> Merged {
        let mut own: SmallVec<[Id; 8]> = SmallVec::new();
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

    /// Computes values here that nobody else reads: `find` gives a value's maker, a number of the caller's, with its formula
    /// and what that reads, where it may be taken in. `readers` counts the readers of each value and is kept right.
    /// The makers that were taken in, in the order in which their parameters follow.
    pub fn absorb_all<'a>(
        &mut self,
        readers: &mut [u32],
        most: Most,
        find: impl Fn(Id) -> Option<(usize, &'a Formula, &'a [Id])>,
    ) -> SmallVec<[usize; 4]> {
        let mut taken = SmallVec::new();
        let mut at = 0;
        while at < self.ins.len() {
            let id = self.ins[at];
            let found = find(id).filter(|_| readers[id as usize] == 1);
            let Some((maker, inner, ins)) = found else {
                at += 1;
                continue;
            };
            // What both read, one reads from now on.
            let both: SmallVec<[Id; 4]> = self.ins.iter().filter(|v| ins.contains(v)).copied().collect();
            if self.absorb(at, inner, ins, most) {
                both.iter().for_each(|v| readers[*v as usize] -= 1);
                taken.push(maker);
                // A value that stands before may now be read here alone.
                at = 0;
            } else {
                at += 1;
            }
        }
        taken
    }

    /// Computes input `at` by `inner` over `ins`, whose parameters follow the present ones. Where that would be too much,
    /// nothing changes and the result is false.
    fn absorb(&mut self, at: usize, inner: &Formula, ins: &[Id], most: Most) -> bool {
        let mut all: SmallVec<[Id; 8]> = self.ins.clone();
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
        let params = self.formula.params().len() + inner.params().len();
        if all.len() > most.inputs || params > most.params {
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

    /// The formula, and the values in the order of its inputs.
    pub fn into_parts(self) -> (Formula, SmallVec<[Id; 8]>) {
        (self.formula, self.ins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_once_and_unread_ones_vanish() {
        let f = Formula::build(3, &[], |a| a.x(0) * a.x(2));
        let (formula, ins) = Merged::new(&f, &[7, 8, 7]).into_parts();
        assert_eq!((formula.text().as_str(), &ins[..]), ("square(x0)", &[7][..]));
    }

    #[test]
    fn a_diamond_becomes_one_formula() {
        // 1 = exp(s * 0), 2 = 1 * 1, 3 = 1 + k * 2
        let exp = Formula::build(1, &["s"], |a| (a.x(0) * a.param("s")).exp());
        let square = Formula::build(2, &[], |a| a.x(0) * a.x(1));
        let add = Formula::build(2, &["k"], |a| a.x(0) + a.x(1) * a.param("k"));
        let mut readers = [1, 2, 1, 2];
        let find = |id| match id {
            1 => Some((10, &exp, &[0][..])),
            2 => Some((20, &square, &[1, 1][..])),
            _ => None,
        };
        let mut merged = Merged::new(&add, &[1, 2]);
        let taken = merged.absorb_all(&mut readers, Most { inputs: 2, params: 2 }, find);
        let (formula, ins) = merged.into_parts();
        assert_eq!((&taken[..], &ins[..]), (&[20, 10][..], &[0][..]));
        assert_eq!(formula.params(), ["k", "s"]);
        assert_eq!(formula.text(), "exp((x0 * s)) + (square(exp((x0 * s))) * k)");
    }

    #[test]
    fn what_others_read_and_what_is_too_much_stays() {
        let add = Formula::build(2, &[], |a| a.x(0) + a.x(1));
        let find = |id| (id > 3).then_some((id as usize, &add, &[1, 2][..]));
        let mut merged = Merged::new(&add, &[3, 4]);
        assert!(merged.absorb_all(&mut [0, 1, 1, 1, 2], Most { inputs: 9, params: 9 }, find).is_empty());
        assert!(merged.absorb_all(&mut [0, 1, 1, 1, 1], Most { inputs: 2, params: 9 }, find).is_empty());
        assert_eq!(merged.absorb_all(&mut [0, 1, 1, 1, 1], Most { inputs: 3, params: 0 }, find)[..], [4]);
    }
}
