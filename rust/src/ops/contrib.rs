//! Small operators of `nd.contrib` and of mixed precision that belong to no other family.

use super::registry::Registry;
use super::{Build, GradArgs, Grads, Values, draw, flag, float, int};
use mxrs_base::{DType, Error, Result};

pub fn register(r: &mut Registry) {
    r.op("_contrib_div_sqrt_dim", "The elements divided by the square root of the last extent.")
        .keeps_shape()
        .input("data", "an array of 1 dimension or more")
        .compose(|b, _, ins| {
            let Some(&last) = b.shape(ins[0]).last() else {
                return Err(Error::op(
                    "_contrib_div_sqrt_dim: data has no dimensions; 1 or more are expected",
                ));
            };
            Ok(super::one(b.scale(ins[0], 1.0 / (last as f64).sqrt())?))
        })
        .sample(&[draw(&[2, 3])], &[]);
    r.op("_contrib_quadratic", "a x^2 + b x + c of each element.")
        .input("data", "values of any shape")
        .params([
            float("a", "factor of the square").or(0.0),
            float("b", "factor of the element").or(0.0),
            float("c", "the constant").or(0.0),
        ])
        .formula(super::Shapes::Same, |a| {
            let x = a.x(0);
            a.param("a") * x * x + a.param("b") * x + a.param("c")
        })
        .sample(&[draw(&[2, 3])], &[("a", 2.0.into()), ("b", (-1.0).into()), ("c", 0.5.into())]);
    r.op("_contrib_gradientmultiplier", "The values themselves; their gradient is multiplied by `scalar`.")
        .input("data", "values of any shape")
        .param(float("scalar", "factor on the gradient").or(1.0))
        .param(flag("is_int", "whether the number was written as a whole number").or(true))
        .formula(super::Shapes::Same, |a| a.x(0))
        .keeps(&[], &[])
        .grad(|b, g| {
            let Some(head) = g.heads[0] else { return Ok(g.none()) };
            let grad = b.scale(head, g.attrs.float("scalar"))?;
            g.first(grad)
        })
        .sample(&[draw(&[2, 3])], &[("scalar", 1.0.into())]);
    r.op("_contrib_round_ste", "The nearest whole number; the gradient passes as if nothing was rounded.")
        .unary(|x| x.round())
        .keeps(&[], &[])
        .grad(straight);
    r.find_mut("_contrib_round_ste").sample(&[draw(&[2, 3])], &[]);
    r.op("_contrib_sign_ste", "-1, 0 or 1 by the sign; the gradient passes as if the element itself had.")
        .unary(|x| x.sign())
        .keeps(&[], &[])
        .grad(straight);
    r.find_mut("_contrib_sign_ste").sample(&[draw(&[2, 3])], &[]);
    multicast(r);
}

/// Bengio, Leonard and Courville 2013: a step's gradient is taken to be 1.
fn straight(_: &mut dyn Build, g: &GradArgs) -> Result<Grads> {
    let mut grads = g.none();
    grads[0] = g.heads[0];
    Ok(grads)
}

fn multicast(r: &mut Registry) {
    r.op("amp_multicast", "All inputs in one floating type: the widest among them, or the narrowest.")
        .variadic("data", "arrays of floating types", "num_outputs")
        .visible(|a| a.size("num_outputs"))
        .param(int("num_outputs", "how many arrays there are").at_least(1.0))
        .param(flag("cast_narrow", "take the narrowest type instead of the widest").or(false))
        .compose(|b, a, ins| {
            let types: Vec<DType> = ins.iter().map(|v| b.dtype(*v)).collect();
            if let Some(wrong) = types.iter().find(|d| !d.is_float()) {
                return Err(Error::op(format!(
                    "amp_multicast: an input is {wrong}; float16, float32 and float64 are allowed"
                )));
            }
            let by_width = |d: &DType| d.size();
            let to = match a.bool("cast_narrow") {
                true => types.iter().copied().min_by_key(by_width),
                false => types.iter().copied().max_by_key(by_width),
            };
            let Some(to) = to else { return Err(Error::op("amp_multicast: no arrays were given")) };
            ins.iter().map(|v| b.cast(*v, to)).collect::<Result<Values>>()
        })
        .sample(&[draw(&[2, 3]), draw(&[4])], &[]);
}
