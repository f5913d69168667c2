//! Typed parameters: declaration, coercion of what users give, and access by the operators.

use super::def::OpDef;
use mxrs_base::{AttrValue, DType, Error, Result, Shape};
use smallvec::SmallVec;

/// What a parameter may be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    Bool,
    Int,
    Float,
    Str,
    /// A tuple of integers; one integer stands for a tuple of one.
    Ints,
    /// A tuple of floats.
    Floats,
    DType,
    Choice(&'static [&'static str]),
}

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
    /// What an absent argument means; `None` where it is required.
    pub default: Option<AttrValue>,
    /// `None` is a value.
    pub nullable: bool,
    /// The least and the largest allowed number (of every entry of a tuple).
    pub range: (f64, f64),
}

macro_rules! maker {
    ($name:ident, $kind:expr, $what:literal) => {
        #[doc = concat!("A required parameter that is ", $what, "; `.or(...)` gives it a default.")]
        pub fn $name(name: &'static str, doc: &'static str) -> Param {
            Param::new(name, $kind, doc)
        }
    };
}
maker!(flag, Kind::Bool, "true or false");
maker!(int, Kind::Int, "an integer");
maker!(float, Kind::Float, "a number");
maker!(string, Kind::Str, "a text");
maker!(ints, Kind::Ints, "a tuple of integers");
maker!(floats, Kind::Floats, "a tuple of numbers");
maker!(dtype, Kind::DType, "an element type");

/// A required parameter that is one of `allowed`.
pub fn choice(name: &'static str, allowed: &'static [&'static str], doc: &'static str) -> Param {
    Param::new(name, Kind::Choice(allowed), doc)
}

/// The empty tuple, a common default.
pub fn empty() -> AttrValue {
    AttrValue::Ints([].into())
}

impl Param {
    fn new(name: &'static str, kind: Kind, doc: &'static str) -> Param {
        let range = match kind {
            // Sizes beyond 2^40 have no use, and sums of a few of them do not overflow.
            Kind::Int | Kind::Ints => (-(1i64 << 53) as f64, (1i64 << 53) as f64),
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        };
        Param { name, kind, doc, default: None, nullable: false, range }
    }
    pub fn or(mut self, default: impl Into<AttrValue>) -> Param {
        self.default = Some(match (self.kind, default.into()) {
            (Kind::Float, AttrValue::Int(v)) => AttrValue::Float(v as f64),
            (_, v) => v,
        });
        self
    }
    /// `None` is allowed and the default.
    pub fn or_none(mut self) -> Param {
        self.default = Some(AttrValue::None);
        self.nullable = true;
        self
    }
    pub fn at_least(mut self, low: f64) -> Param {
        self.range.0 = low;
        self
    }
    pub fn at_most(mut self, high: f64) -> Param {
        self.range.1 = high;
        self
    }

    /// The type in words, for documentation and messages.
    pub fn type_text(&self) -> String {
        let base = match self.kind {
            Kind::Bool => "bool".to_string(),
            Kind::Int => "int".to_string(),
            Kind::Float => "float".to_string(),
            Kind::Str => "str".to_string(),
            Kind::Ints => "tuple of int".to_string(),
            Kind::Floats => "tuple of float".to_string(),
            Kind::DType => "dtype".to_string(),
            Kind::Choice(names) => format!("{{{}}}", names.join(", ")),
        };
        if self.nullable { format!("{base} or None") } else { base }
    }

    /// The value as this parameter's type, or an error that says what is allowed.
    pub fn coerce(&self, op: &str, given: AttrValue) -> Result<AttrValue> {
        let value = self.convert(&given).ok_or_else(|| {
            Error::op(format!(
                "{op}: argument {} = {} is not valid; {} is expected",
                self.name,
                show(&given),
                self.type_text()
            ))
        })?;
        self.check_range(op, &value)?;
        Ok(value)
    }

    fn convert(&self, given: &AttrValue) -> Option<AttrValue> {
        use AttrValue as V;
        if let V::Str(text) = given
            && (!matches!(self.kind, Kind::Str | Kind::Choice(_)) || (self.nullable && &**text == "None"))
        {
            return self.parse(text);
        }
        Some(match (self.kind, given) {
            (_, V::None) if self.nullable => V::None,
            (Kind::Bool, V::Bool(v)) => V::Bool(*v),
            (Kind::Bool, V::Int(v)) => V::Bool(*v != 0),
            (Kind::Bool, V::Float(v)) if *v == 0.0 || *v == 1.0 => V::Bool(*v != 0.0),
            (Kind::Int, V::Int(v)) => V::Int(*v),
            (Kind::Int, V::Bool(v)) => V::Int(*v as i64),
            (Kind::Int, V::Float(v)) if v.fract() == 0.0 && v.abs() < 9e15 => V::Int(*v as i64),
            (Kind::Float, V::Float(v)) => V::Float(*v),
            (Kind::Float, V::Int(v)) => V::Float(*v as f64),
            (Kind::Float, V::Bool(v)) => V::Float(*v as u8 as f64),
            (Kind::Str, V::Str(v)) => V::Str(v.clone()),
            (Kind::Ints, V::Ints(v)) => V::Ints(v.clone()),
            (Kind::Ints, V::Int(v)) => V::Ints([Some(*v)].into()),
            (Kind::Ints, V::Floats(v)) if v.iter().all(|x| x.fract() == 0.0 && x.abs() < 9e15) => {
                V::Ints(v.iter().map(|x| Some(*x as i64)).collect())
            }
            (Kind::Floats, V::Floats(v)) => V::Floats(v.clone()),
            (Kind::Floats, V::Ints(v)) => {
                V::Floats(v.iter().map(|x| x.map(|x| x as f64)).collect::<Option<Vec<f64>>>()?.into())
            }
            (Kind::Floats, V::Float(v)) => V::Floats([*v].into()),
            (Kind::Floats, V::Int(v)) => V::Floats([*v as f64].into()),
            (Kind::DType, V::DType(v)) => V::DType(*v),
            (Kind::DType, V::Int(v)) => V::DType(DType::from_flag(*v).ok()?),
            (Kind::Choice(names), V::Str(v)) if names.contains(&&**v) => V::Str(v.clone()),
            _ => return None,
        })
    }

    /// Reads the spelling that MXNet's files and string arguments have: `(2, 2)`, `[2,2]`, `True`, `1e-3`, `None`.
    fn parse(&self, text: &str) -> Option<AttrValue> {
        let text = text.trim();
        if self.nullable && (text == "None" || text.is_empty()) {
            return Some(AttrValue::None);
        }
        let inside =
            || text.trim_matches(|c| "()[]".contains(c)).split(',').map(str::trim).filter(|s| !s.is_empty());
        Some(match self.kind {
            Kind::Bool => match text {
                "True" | "true" | "1" => AttrValue::Bool(true),
                "False" | "false" | "0" => AttrValue::Bool(false),
                _ => return None,
            },
            Kind::Int => match text.trim_end_matches('L').parse::<i64>() {
                Ok(v) => AttrValue::Int(v),
                Err(_) => self.convert(&AttrValue::Float(text.parse().ok()?))?,
            },
            Kind::Float => AttrValue::Float(text.trim_end_matches('f').parse().ok()?),
            Kind::Ints => AttrValue::Ints(
                inside()
                    .map(|s| match s {
                        "None" => Some(None),
                        s => s.trim_end_matches('L').parse().ok().map(Some),
                    })
                    .collect::<Option<Vec<_>>>()?
                    .into(),
            ),
            Kind::Floats => {
                AttrValue::Floats(inside().map(|s| s.parse().ok()).collect::<Option<Vec<f64>>>()?.into())
            }
            Kind::DType => AttrValue::DType(DType::from_name(text).ok()?),
            Kind::Str | Kind::Choice(_) => return None,
        })
    }

    fn check_range(&self, op: &str, value: &AttrValue) -> Result<()> {
        let (low, high) = self.range;
        // A not-a-number fails both comparisons, so it is refused wherever a bound is set.
        let bounded = low > f64::NEG_INFINITY || high < f64::INFINITY;
        let ok = |v: f64| !bounded || (v >= low && v <= high);
        let fine = match value {
            AttrValue::Int(v) => ok(*v as f64),
            AttrValue::Float(v) => ok(*v),
            // A None inside a tuple stands for 0 where a number is wanted.
            AttrValue::Ints(v) => v.iter().all(|v| v.map_or(low <= 0.0, |v| ok(v as f64))),
            AttrValue::Floats(v) => v.iter().all(|v| ok(*v)),
            _ => true,
        };
        if fine {
            return Ok(());
        }
        let allowed = match (low > -1e15, high < 1e15) {
            (true, true) => format!("{low} to {high} is allowed"),
            (true, false) => format!("at least {low} is allowed"),
            (false, true) => format!("at most {high} is allowed"),
            (false, false) => "it is out of range".to_string(),
        };
        Err(Error::op(format!("{op}: argument {} = {} is not valid; {allowed}", self.name, show(value))))
    }
}

/// A value as a user would write it.
pub fn show(value: &AttrValue) -> String {
    match value {
        AttrValue::None => "None".into(),
        AttrValue::Bool(v) => if *v { "True" } else { "False" }.into(),
        AttrValue::Int(v) => v.to_string(),
        AttrValue::Float(v) => format!("{v}"),
        AttrValue::Str(v) => format!("'{v}'"),
        AttrValue::DType(v) => format!("'{v}'"),
        AttrValue::Ints(v) => {
            let items: Vec<String> = v.iter().map(|x| x.map_or("None".into(), |x| x.to_string())).collect();
            tuple(&items)
        }
        AttrValue::Floats(v) => tuple(&v.iter().map(|x| x.to_string()).collect::<Vec<_>>()),
    }
}

fn tuple(items: &[String]) -> String {
    if items.len() == 1 { format!("({},)", items[0]) } else { format!("({})", items.join(", ")) }
}

/// The attributes of one call, in the order of the operator's parameters.
///
/// The getters panic on a name that the operator does not declare, or declares as another kind: that is a fault of
/// the record, found by the first sample that runs it, never something input can cause.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attrs {
    op: &'static OpDef,
    values: SmallVec<[AttrValue; 4]>,
}

impl Attrs {
    /// Attributes from values already in order and coerced.
    pub fn from_values(op: &'static OpDef, values: SmallVec<[AttrValue; 4]>) -> Attrs {
        debug_assert_eq!(values.len(), op.params.len());
        Attrs { op, values }
    }

    /// Attributes by name; the others take their defaults.
    pub fn new(op: &'static OpDef, given: &[(&str, AttrValue)]) -> Result<Attrs> {
        let mut slots: SmallVec<[Option<AttrValue>; 8]> = smallvec::smallvec![None; op.params.len()];
        for (name, value) in given {
            let i = op.param_index(name).ok_or_else(|| {
                let names: Vec<&str> = op.params.iter().map(|p| p.name).collect();
                Error::op(format!("{}: no argument is named {name}; there are {}", op.name, names.join(", ")))
            })?;
            slots[i] = Some(op.params[i].coerce(op.name, value.clone())?);
        }
        Attrs::from_slots(op, slots)
    }

    /// Attributes from coerced values, absent ones taking their defaults.
    pub fn from_slots(
        op: &'static OpDef,
        slots: impl IntoIterator<Item = Option<AttrValue>>,
    ) -> Result<Attrs> {
        let mut values = SmallVec::with_capacity(op.params.len());
        for (param, slot) in op.params.iter().zip(slots) {
            values.push(match slot.or_else(|| param.default.clone()) {
                Some(v) => v,
                None => {
                    return Err(Error::op(format!(
                        "{}: the argument {} ({}) is required",
                        op.name,
                        param.name,
                        param.type_text()
                    )));
                }
            });
        }
        Ok(Attrs { op, values })
    }

    pub fn op(&self) -> &'static OpDef {
        self.op
    }
    pub fn values(&self) -> &[AttrValue] {
        &self.values
    }

    #[inline]
    pub fn get(&self, name: &str) -> &AttrValue {
        match self.op.param_index(name) {
            Some(i) => &self.values[i],
            None => panic!("{} declares no parameter {name}", self.op.name),
        }
    }
    pub fn has(&self, name: &str) -> bool {
        self.op.param_index(name).is_some()
    }
    pub fn is_none(&self, name: &str) -> bool {
        matches!(self.get(name), AttrValue::None)
    }
    #[inline]
    pub fn bool(&self, name: &str) -> bool {
        match self.get(name) {
            AttrValue::Bool(v) => *v,
            AttrValue::None => false,
            _ => self.wrong(name, "bool"),
        }
    }
    #[inline]
    pub fn int(&self, name: &str) -> i64 {
        self.opt_int(name).unwrap_or_else(|| self.wrong(name, "int"))
    }
    pub fn opt_int(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            AttrValue::Int(v) => Some(*v),
            AttrValue::None => None,
            _ => self.wrong(name, "int"),
        }
    }
    /// A parameter declared with `at_least(0)` or more.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.int(name)).unwrap_or(0)
    }
    #[inline]
    pub fn float(&self, name: &str) -> f64 {
        self.opt_float(name).unwrap_or_else(|| self.wrong(name, "float"))
    }
    pub fn opt_float(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            AttrValue::Float(v) => Some(*v),
            AttrValue::None => None,
            _ => self.wrong(name, "float"),
        }
    }
    pub fn str(&self, name: &str) -> &str {
        match self.get(name) {
            AttrValue::Str(v) => v,
            AttrValue::None => "",
            _ => self.wrong(name, "str"),
        }
    }
    pub fn dtype(&self, name: &str) -> DType {
        self.opt_dtype(name).unwrap_or_else(|| self.wrong(name, "dtype"))
    }
    pub fn opt_dtype(&self, name: &str) -> Option<DType> {
        match self.get(name) {
            AttrValue::DType(v) => Some(*v),
            AttrValue::None => None,
            _ => self.wrong(name, "dtype"),
        }
    }
    /// A tuple with `None` entries kept; an absent tuple is empty.
    pub fn opt_ints(&self, name: &str) -> &[Option<i64>] {
        match self.get(name) {
            AttrValue::Ints(v) => v,
            AttrValue::None => &[],
            _ => self.wrong(name, "tuple of int"),
        }
    }
    /// A tuple of integers; a `None` entry counts as 0.
    pub fn ints(&self, name: &str) -> SmallVec<[i64; 4]> {
        self.opt_ints(name).iter().map(|v| v.unwrap_or(0)).collect()
    }
    pub fn floats(&self, name: &str) -> &[f64] {
        match self.get(name) {
            AttrValue::Floats(v) => v,
            AttrValue::None => &[],
            _ => self.wrong(name, "tuple of float"),
        }
    }
    /// A tuple as a shape; negative entries are refused.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        Shape::from_i64(&self.ints(name)).map_err(|e| e.within(&format!("{}: argument {name}", self.op.name)))
    }

    /// The number that a formula's parameter has: booleans are 0 and 1.
    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            AttrValue::Float(v) => *v,
            AttrValue::Int(v) => *v as f64,
            AttrValue::Bool(v) => *v as u8 as f64,
            _ => f64::NAN,
        }
    }

    fn wrong(&self, name: &str, kind: &str) -> ! {
        panic!("{}.{name} is {:?}, read as {kind}", self.op.name, self.get(name))
    }
}

impl PartialEq for OpDef {
    fn eq(&self, other: &OpDef) -> bool {
        std::ptr::eq(self, other)
    }
}
impl Eq for OpDef {}
impl std::hash::Hash for OpDef {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        std::ptr::from_ref(self).hash(h);
    }
}
