//! The table of scalar instructions. A row is everything about one: name, cost, WGSL, floats, integers.
//!
//! `exact` rows have an integer meaning of their own; the rest take integers through double precision and truncate.
//! The cost estimates nanoseconds per thousand float32 elements on one core (it is no measurement); what
//! derives from an instruction (its derivative) stands in the formula room.

use crate::kernels::{BinOp, UnOp};
use crate::level::Level;
use crate::ops::{Float, Int};

macro_rules! unary_table {
    (
        exact { $($name:ident $text:literal $wgsl:literal $cost:literal |$x:ident| $float:expr, |$i:ident| $int:expr;)* }
        through_f64 { $($tname:ident $ttext:literal $twgsl:literal $tcost:literal |$tx:ident| $tfloat:expr $(, repair $repair:path)?;)* }
    ) => {
        /// Instructions of one operand.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Unary { $($name,)* $($tname,)* }

        impl Unary {
            pub const ALL: &[Unary] = &[$(Unary::$name,)* $(Unary::$tname,)*];

            /// The name in formula texts.
            pub const fn name(self) -> &'static str {
                match self { $(Unary::$name => $text,)* $(Unary::$tname => $ttext,)* }
            }

            /// The WGSL expression, `{0}` standing for the operand; see [`crate::wgsl_helper`] for `mx_` functions.
            pub const fn wgsl(self) -> &'static str {
                match self { $(Unary::$name => $wgsl,)* $(Unary::$tname => $twgsl,)* }
            }

            /// Nanoseconds per thousand float32 elements, roughly.
            pub const fn cost(self) -> u32 {
                match self { $(Unary::$name => $cost,)* $(Unary::$tname => $tcost,)* }
            }
        }

        pub(crate) mod unary_ops {
            use super::*;
            $(
                pub(crate) struct $name;
                impl UnOp<f32> for $name {
                    const HEAVY: bool = $cost >= 200;
                    #[inline(always)]
                    fn f<L: Level>($x: f32) -> f32 { type F = f32; let _ = F::ZERO; $float }
                }
                impl UnOp<f64> for $name {
                    const HEAVY: bool = $cost >= 200;
                    #[inline(always)]
                    fn f<L: Level>($x: f64) -> f64 { type F = f64; let _ = F::ZERO; $float }
                }
                int_unary!($name |$i| $int; u8 i8 i32 i64);
            )*
            $(
                pub(crate) struct $tname;
                impl UnOp<f32> for $tname {
                    const HEAVY: bool = $tcost >= 200;
                    #[inline(always)]
                    fn f<L: Level>($tx: f32) -> f32 { type F = f32; let _ = F::ZERO; $tfloat }
                    $(#[inline(always)]
                    fn repair(x: &[f32], out: &mut [f32]) { crate::math32::repair_sines(x, out, $repair) })?
                }
                impl UnOp<f64> for $tname {
                    const HEAVY: bool = $tcost >= 200;
                    #[inline(always)]
                    fn f<L: Level>($tx: f64) -> f64 { type F = f64; let _ = F::ZERO; $tfloat }
                }
            )*
        }

        /// Calls `$f!(Op exact)` or `$f!(Op through_f64)` for the instruction.
        macro_rules! match_unary {
            ($op:expr, $f:ident) => {
                match $op {
                    $(Unary::$name => $f!($name exact),)*
                    $(Unary::$tname => $f!($tname through_f64),)*
                }
            };
        }
        pub(crate) use match_unary;
    };
}

macro_rules! int_unary {
    ($name:ident |$i:ident| $int:expr; $($t:ident)*) => { $(
        impl UnOp<$t> for $name {
            const HEAVY: bool = false;
            #[inline(always)]
            fn f<L: Level>($i: $t) -> $t { type I = $t; let _ = <I as Int>::ZERO; $int }
        }
    )* };
}

macro_rules! int_binary {
    ($name:ident |$i:ident, $j:ident| $int:expr; $($t:ident)*) => { $(
        impl BinOp<$t> for $name {
            #[inline(always)]
            fn f<L: Level>($i: $t, $j: $t) -> $t { type I = $t; let _ = <I as Int>::ZERO; $int }
        }
    )* };
}

macro_rules! binary_table {
    (
        exact { $($name:ident $text:literal $wgsl:literal $cost:literal
            |$a:ident, $b:ident| $float:expr, |$i:ident, $j:ident| $int:expr;)* }
        through_f64 { $($tname:ident $ttext:literal $twgsl:literal $tcost:literal |$ta:ident, $tb:ident| $tfloat:expr;)* }
    ) => {
        /// Instructions of two operands. Comparisons and logic give 0 or 1 in the operands' own type.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Binary { $($name,)* $($tname,)* }

        impl Binary {
            pub const ALL: &[Binary] = &[$(Binary::$name,)* $(Binary::$tname,)*];

            /// The name or sign in formula texts.
            pub const fn name(self) -> &'static str {
                match self { $(Binary::$name => $text,)* $(Binary::$tname => $ttext,)* }
            }

            /// The WGSL expression, `{0}` and `{1}` standing for the operands.
            pub const fn wgsl(self) -> &'static str {
                match self { $(Binary::$name => $wgsl,)* $(Binary::$tname => $twgsl,)* }
            }

            /// Nanoseconds per thousand float32 elements, roughly.
            pub const fn cost(self) -> u32 {
                match self { $(Binary::$name => $cost,)* $(Binary::$tname => $tcost,)* }
            }
        }

        pub(crate) mod binary_ops {
            use super::*;
            $(
                pub(crate) struct $name;
                impl BinOp<f32> for $name {
                    #[inline(always)]
                    fn f<L: Level>($a: f32, $b: f32) -> f32 { type F = f32; let _ = F::ZERO; $float }
                }
                impl BinOp<f64> for $name {
                    #[inline(always)]
                    fn f<L: Level>($a: f64, $b: f64) -> f64 { type F = f64; let _ = F::ZERO; $float }
                }
                int_binary!($name |$i, $j| $int; u8 i8 i32 i64);
            )*
            $(
                pub(crate) struct $tname;
                impl BinOp<f32> for $tname {
                    #[inline(always)]
                    fn f<L: Level>($ta: f32, $tb: f32) -> f32 { type F = f32; let _ = F::ZERO; $tfloat }
                }
                impl BinOp<f64> for $tname {
                    #[inline(always)]
                    fn f<L: Level>($ta: f64, $tb: f64) -> f64 { type F = f64; let _ = F::ZERO; $tfloat }
                }
            )*
        }

        macro_rules! match_binary {
            ($op:expr, $f:ident) => {
                match $op {
                    $(Binary::$name => $f!($name exact),)*
                    $(Binary::$tname => $f!($tname through_f64),)*
                }
            };
        }
        pub(crate) use match_binary;
    };
}

unary_table! {
    exact {
        Neg "negative" "(-{0})" 40 |x| -x, |i| i.neg();
        Abs "abs" "abs({0})" 40 |x| Float::abs(x), |i| Int::abs(i);
        Sign "sign" "sign({0})" 50 |x| Float::sign(x), |i| Int::sign(i);
        Square "square" "({0} * {0})" 40 |x| x * x, |i| Int::mul(i, i);
        Recip "reciprocal" "(1.0 / {0})" 80 |x| 1.0 / x, |i| Int::div(I::ONE, i);
        Relu "relu" "select({0}, 0.0, {0} <= 0.0)" 40
            |x| if x <= 0.0 { 0.0 } else { x }, |i| Ord::max(i, I::ZERO);
        Floor "floor" "floor({0})" 40 |x| Float::floor(x), |i| i;
        Ceil "ceil" "ceil({0})" 40 |x| Float::ceil(x), |i| i;
        Round "round" "(sign({0}) * floor(abs({0}) + 0.5))" 60 |x| x.round_away(), |i| i;
        Rint "rint" "ceil({0} - 0.5)" 60 |x| x.round_low(), |i| i;
        Trunc "trunc" "trunc({0})" 40 |x| Float::trunc(x), |i| i;
        LogicalNot "logical_not" "select(0.0, 1.0, {0} == 0.0)" 40 |x| F::flag(x == 0.0), |i| I::flag(i == I::ZERO);
        IsNan "isnan" "mx_isnan({0})" 40 |x| F::flag(x.is_nan()), |_i| I::ZERO;
        IsInf "isinf" "mx_isinf({0})" 40 |x| F::flag(Float::abs(x) == F::INFINITY), |_i| I::ZERO;
        IsFinite "isfinite" "mx_isfinite({0})" 40 |x| F::flag(Float::abs(x) < F::INFINITY), |_i| I::ONE;
    }
    through_f64 {
        Exp "exp" "exp({0})" 300 |x| Float::exp::<L>(x);
        Log "log" "log({0})" 350 |x| Float::log::<L>(x);
        Log2 "log2" "log2({0})" 600 |x| Float::log2::<L>(x);
        Log10 "log10" "(log2({0}) * 0.30102999566398120)" 600 |x| Float::log10::<L>(x);
        Log1p "log1p" "mx_log1p({0})" 900 |x| Float::log1p::<L>(x);
        Expm1 "expm1" "mx_expm1({0})" 700 |x| Float::expm1::<L>(x);
        Sqrt "sqrt" "sqrt({0})" 90 |x| Float::sqrt(x);
        Rsqrt "rsqrt" "inverseSqrt({0})" 160 |x| 1.0 / Float::sqrt(x);
        Cbrt "cbrt" "mx_cbrt({0})" 900 |x| Float::cbrt::<L>(x);
        Rcbrt "rcbrt" "(1.0 / mx_cbrt({0}))" 900 |x| 1.0 / Float::cbrt::<L>(x);
        Sin "sin" "mx_sin({0})" 800 |x| Float::sin::<L>(x), repair f32::sin;
        Cos "cos" "mx_cos({0})" 800 |x| Float::cos::<L>(x), repair f32::cos;
        Tan "tan" "mx_tan({0})" 1000 |x| Float::tan::<L>(x), repair f32::tan;
        Asin "arcsin" "mx_asin({0})" 1000 |x| Float::asin::<L>(x);
        Acos "arccos" "mx_acos({0})" 1000 |x| Float::acos::<L>(x);
        Atan "arctan" "atan({0})" 800 |x| Float::atan::<L>(x);
        Sinh "sinh" "mx_sinh({0})" 900 |x| Float::sinh::<L>(x);
        Cosh "cosh" "cosh({0})" 800 |x| Float::cosh::<L>(x);
        Tanh "tanh" "mx_tanh({0})" 500 |x| Float::tanh::<L>(x);
        Asinh "arcsinh" "mx_asinh({0})" 1200 |x| Float::asinh::<L>(x);
        Acosh "arccosh" "acosh({0})" 1200 |x| Float::acosh::<L>(x);
        Atanh "arctanh" "mx_atanh({0})" 1000 |x| Float::atanh::<L>(x);
        Sigmoid "sigmoid" "mx_sigmoid({0})" 400 |x| Float::sigmoid::<L>(x);
        Softplus "softrelu" "mx_softplus({0})" 900 |x| Float::softplus::<L>(x);
        Erf "erf" "mx_erf({0})" 600 |x| Float::erf::<L>(x);
        Erfinv "erfinv" "mx_erfinv({0})" 1500 |x| Float::erfinv::<L>(x);
        Gamma "gamma" "mx_gamma({0})" 20000 |x| Float::gamma(x);
        LogGamma "gammaln" "mx_lgamma({0})" 20000 |x| Float::lgamma(x);
        Digamma "digamma" "mx_digamma({0})" 20000 |x| Float::digamma(x);
        Degrees "degrees" "({0} * 57.295779513082321)" 40 |x| x * F::of(180.0 / std::f64::consts::PI);
        Radians "radians" "({0} * 0.017453292519943296)" 40 |x| x * F::of(std::f64::consts::PI / 180.0);
    }
}

binary_table! {
    exact {
        Add "+" "({0} + {1})" 50 |a, b| a + b, |i, j| i.add(j);
        Sub "-" "({0} - {1})" 50 |a, b| a - b, |i, j| i.sub(j);
        Mul "*" "({0} * {1})" 50 |a, b| a * b, |i, j| i.mul(j);
        Div "/" "({0} / {1})" 90 |a, b| a / b, |i, j| i.div(j);
        Mod "%" "mx_mod({0}, {1})" 300 |a, b| a.floor_mod(b), |i, j| i.floor_mod(j);
        Max "max" "mx_max({0}, {1})" 50 |a, b| Float::max(a, b), |i, j| Ord::max(i, j);
        Min "min" "mx_min({0}, {1})" 50 |a, b| Float::min(a, b), |i, j| Ord::min(i, j);
        Eq "==" "mx_eq({0}, {1})" 50 |a, b| F::flag(a == b), |i, j| I::flag(i == j);
        Ne "!=" "(1.0 - mx_eq({0}, {1}))" 50 |a, b| F::flag(a != b), |i, j| I::flag(i != j);
        Gt ">" "select(0.0, 1.0, {0} > {1})" 50 |a, b| F::flag(a > b), |i, j| I::flag(i > j);
        Ge ">=" "select(0.0, 1.0, {0} >= {1})" 50 |a, b| F::flag(a >= b), |i, j| I::flag(i >= j);
        Lt "<" "select(0.0, 1.0, {0} < {1})" 50 |a, b| F::flag(a < b), |i, j| I::flag(i < j);
        Le "<=" "select(0.0, 1.0, {0} <= {1})" 50 |a, b| F::flag(a <= b), |i, j| I::flag(i <= j);
        And "&&" "select(0.0, 1.0, {0} != 0.0 && {1} != 0.0)" 50
            |a, b| F::flag(a.on() & b.on()), |i, j| I::flag(i.on() & j.on());
        Or "||" "select(0.0, 1.0, {0} != 0.0 || {1} != 0.0)" 50
            |a, b| F::flag(a.on() | b.on()), |i, j| I::flag(i.on() | j.on());
        Xor "^^" "select(0.0, 1.0, ({0} != 0.0) != ({1} != 0.0))" 50
            |a, b| F::flag(a.on() != b.on()), |i, j| I::flag(i.on() != j.on());
    }
    through_f64 {
        Pow "pow" "mx_pow({0}, {1})" 1500 |a, b| Float::pow::<L>(a, b);
        Hypot "hypot" "mx_hypot({0}, {1})" 250 |a, b| Float::hypot::<L>(a, b);
        Arctan2 "arctan2" "atan2({0}, {1})" 1200 |a, b| Float::atan2::<L>(a, b);
        Ldexp "ldexp" "({0} * exp2({1}))" 600 |a, b| Float::ldexp::<L>(a, b);
        Copysign "copysign" "mx_copysign({0}, {1})" 60 |a, b| Float::copysign(a, b);
    }
}
