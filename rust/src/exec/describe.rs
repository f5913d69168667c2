//! A plan as text, for people: `MXRS_DEBUG=plan`.

use super::plan::{Place, Plan, Step};
use crate::graph::Work;
use crate::ops::show;
use std::fmt::Write;

/// One line per step: what is called, for which node, from where to where.
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    let calls = plan.program.instrs.len();
    let _ = writeln!(
        text,
        "plan: {} steps ({} forward), {calls} calls, {:.2} MiB of working memory, {} constants",
        plan.steps.len(),
        plan.forward,
        plan.arena as f64 / (1 << 20) as f64,
        plan.consts.len()
    );
    let again = plan.again().len();
    if again > 0 {
        let _ = writeln!(
            text,
            "{again} nodes are computed again in the backward phase: `(again)` stands behind their names"
        );
    }
    for (n, step) in plan.steps.iter().enumerate() {
        if n == plan.forward {
            text.push_str("-- backward\n");
        }
        let _ = writeln!(text, "{n:5}  {}", line(plan, step));
    }
    text
}

fn line(plan: &Plan, step: &Step) -> String {
    match step {
        Step::Call { instr, ins, outs } => {
            let instr = &plan.program.instrs[*instr as usize];
            let what = match &instr.work {
                Work::Op { op, attrs } => {
                    let given: Vec<String> = op
                        .params
                        .iter()
                        .zip(attrs.values())
                        .filter(|(p, v)| p.default.as_ref() != Some(v))
                        .map(|(p, v)| format!("{}={}", p.name, show(v)))
                        .collect();
                    format!("{}({})", op.name, given.join(", "))
                }
                Work::Fused { formula, params } => format!("fused {} {params:?}", formula.text()),
            };
            let what = match &instr.then {
                Some(then) => {
                    format!("{what} then {} of x{} {:?}", then.formula.text(), then.at, then.params)
                }
                None => what,
            };
            let list = |places: &[Place], values: &[u32]| {
                let items: Vec<String> = places
                    .iter()
                    .zip(values)
                    .map(|(p, v)| format!("{}{}", place(*p), plan.spec(*v).shape))
                    .collect();
                items.join(" ")
            };
            format!(
                "{} <- {} <- {}  # {}",
                list(outs, &instr.outs),
                what,
                list(ins, &instr.ins),
                plan.node(instr)
            )
        }
        Step::Copy { from, to, .. } => format!("{} <- copy {}", place(*to), place(*from)),
        Step::Add { from, to, .. } => format!("{} += {}", place(*to), place(*from)),
        Step::Zero { to, .. } => format!("{} <- 0", place(*to)),
    }
}

fn place(place: Place) -> String {
    match place {
        Place::Nowhere => "nowhere".into(),
        Place::Input(i) => format!("in{i}"),
        Place::Head(i) => format!("head{i}"),
        Place::Output(i) => format!("out{i}"),
        Place::Grad(i) => format!("grad{i}"),
        Place::Const(i) => format!("const{i}"),
        Place::Arena(start) => format!("@{start}"),
    }
}
