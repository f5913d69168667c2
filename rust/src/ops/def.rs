//! What an operator is: one record that says everything about it, and the builder that writes it.
//!
//! A record names the operator, its inputs and typed parameters, the rule that gives its output shapes and types, its
//! body in one of three grades (formula, composition, kernel), its gradient, and samples for the derived tests. From
//! it come the Python functions and methods, their docstrings and stubs, argument errors and tests.

use super::attrs::{Attrs, Param};
use super::build::{Build, GradArgs, Grads, Values};
use super::infer::{Sig, Spec, Specs};
use super::kernel::Ctx;
use mxrs_base::{AttrValue, DType, Result, Shape};
use mxrs_formula::Formula;
use smallvec::SmallVec;
use std::sync::OnceLock;

/// A registered operator. Records live for the whole process.
pub type OpRef = &'static OpDef;

type InferFn = Box<dyn Fn(&Sig) -> Result<Specs> + Send + Sync>;
type ComposeFn = Box<dyn Fn(&mut dyn Build, &Attrs, &[super::Value]) -> Result<Values> + Send + Sync>;
type InferenceFn =
    Box<dyn Fn(&mut dyn Build, &Attrs, &[super::Value]) -> Result<Option<Values>> + Send + Sync>;
type GpuFn = Box<dyn Fn(&super::GpuCtx) -> Result<()> + Send + Sync>;
type KernelFn = Box<dyn Fn(&Ctx) -> Result<()> + Send + Sync>;
type GradFn = Box<dyn Fn(&mut dyn Build, &GradArgs) -> Result<Grads> + Send + Sync>;
type CostFn = Box<dyn Fn(&Sig, &[Spec]) -> f64 + Send + Sync>;
type CompleteFn = Box<dyn Fn(&Attrs, &mut [Option<Shape>]) -> Result<()> + Send + Sync>;
type CountFn = fn(&Attrs) -> usize;
type NamesFn = fn(&Attrs) -> &'static [&'static str];

/// A tensor argument.
pub struct Input {
    pub name: &'static str,
    pub doc: &'static str,
}

/// How the shapes of a formula's inputs relate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shapes {
    /// All equal.
    Same,
    /// Broadcast to one another by NumPy's rule.
    Broadcast,
}

/// The three grades of body.
pub enum Body {
    /// A scalar expression over elements.
    Formula { formula: Formula, shapes: Shapes },
    /// Other operators.
    Compose(ComposeFn),
    /// A compute core of `mxrs-kernels`.
    Kernel(KernelFn),
}

pub enum Gradient {
    /// Derived from the formula, or from the operators of the composition.
    Derived,
    /// The rule, in terms of other operators.
    Rule(GradFn),
    /// Zero everywhere it exists: comparisons, rounding, indices.
    Zero,
    /// Asking for it is an error.
    Refused,
}

/// Which values the gradient rule looks at; the tape keeps only these.
#[derive(Clone, Copy, Debug)]
pub struct Keeps {
    pub ins: u32,
    pub outs: u32,
}

impl Keeps {
    pub const ALL: Keeps = Keeps { ins: u32::MAX, outs: u32::MAX };
    pub fn of(ins: &[usize], outs: &[usize]) -> Keeps {
        let mask = |v: &[usize]| v.iter().fold(0, |m, i| m | 1u32 << i);
        Keeps { ins: mask(ins), outs: mask(outs) }
    }
    /// Inputs beyond the thirty-first (variadic operators) count as the thirty-first.
    pub fn input(self, i: usize) -> bool {
        self.ins >> i.min(31) & 1 == 1
    }
    pub fn output(self, i: usize) -> bool {
        self.outs >> i.min(31) & 1 == 1
    }
}

/// One set of inputs and attributes on which the derived tests run the operator.
#[derive(Clone)]
pub struct Sample {
    pub inputs: Vec<SampleInput>,
    pub attrs: Vec<(&'static str, AttrValue)>,
}

/// A drawn tensor: uniform in `low..high`, whole numbers where `integer`.
#[derive(Clone)]
pub struct SampleInput {
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub low: f64,
    pub high: f64,
    pub integer: bool,
}

/// Values uniform in `-1..1`.
pub fn draw(shape: &[usize]) -> SampleInput {
    SampleInput { shape: shape.to_vec(), dtype: DType::F32, low: -1.0, high: 1.0, integer: false }
}

impl SampleInput {
    /// Values uniform in `low..high`.
    pub fn within(mut self, low: f64, high: f64) -> SampleInput {
        (self.low, self.high) = (low, high);
        self
    }
    /// Whole numbers `0..n`.
    pub fn indices(mut self, n: usize) -> SampleInput {
        (self.low, self.high, self.integer) = (0.0, n as f64, true);
        self
    }
    pub fn of(mut self, dtype: DType) -> SampleInput {
        self.dtype = dtype;
        self
    }
}

/// The record.
pub struct OpDef {
    pub name: &'static str,
    pub aliases: Vec<&'static str>,
    /// Names that are methods of NDArray and Symbol.
    pub methods: Vec<&'static str>,
    pub doc: &'static str,
    pub inputs: Vec<Input>,
    /// Any number of inputs of the one declared kind; this parameter counts them.
    pub variadic: Option<&'static str>,
    /// How many of the declared inputs are there, where attributes decide.
    pub input_count: Option<CountFn>,
    /// The inputs' names where attributes choose among them, or fix those of a variadic operator; empty where not.
    pub input_names: Option<NamesFn>,
    pub params: Vec<Param>,
    /// Inputs that the operator writes (auxiliary states, optimizer states).
    pub mutates: Vec<usize>,
    /// Inputs that are auxiliary states in a graph though this call only reads them: its gradient writes them.
    pub states: Vec<usize>,
    /// Outputs that start as a copy of an input (`(output, input)`), so that `out=input` updates in place.
    pub updates: Vec<(usize, usize)>,
    /// How many outputs users see, where that is not one; hidden ones come after them.
    pub visible: Option<CountFn>,
    /// How many outputs MXNet's files count, where that is not what users see.
    pub file_outputs: Option<CountFn>,
    /// What outputs are called in a graph, where that is not `output`, or `output0`, `output1`, ...
    pub output_names: &'static [&'static str],
    /// The `__init__` text of variables that a graph makes for inputs: `(input, text)`.
    pub inits: Vec<(usize, &'static str)>,
    /// Inputs and outputs all have one shape, so that a graph learns each from any other.
    pub keeps_shape: bool,
    /// The output has the elements of input 0 in their order: in a plan it may share its memory.
    pub views: bool,
    pub infer: InferFn,
    /// Fills in unknown input shapes (weights) from known ones.
    pub complete: Option<CompleteFn>,
    pub body: Body,
    /// What a kernel launches on a GPU.
    pub gpu: Option<GpuFn>,
    pub gradient: Gradient,
    pub keeps: Keeps,
    /// The same result out of differentiable operators; used where the result is differentiated again.
    pub equivalent: Option<ComposeFn>,
    /// The call in a graph that neither trains nor has gradients, where simpler operators do.
    pub inference: Option<InferenceFn>,
    /// The kernel tells [`super::Ctx::finish`] which parts of its output are done.
    pub finishes: bool,
    /// Estimated nanoseconds of one run on one core.
    pub cost: Option<CostFn>,
    /// Inputs of different dtypes are cast to their common one.
    pub promotes: bool,
    /// Takes a part of the random stream.
    pub random: bool,
    /// Behaves differently while training.
    pub trains: bool,
    pub samples: Vec<Sample>,
    /// Not for users: gradients and other helpers.
    pub hidden: bool,
    /// Derivatives of a formula, made when first asked for.
    derivatives: OnceLock<Vec<Option<OpRef>>>,
    formula_keeps: OnceLock<Keeps>,
}

impl std::fmt::Debug for OpDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "op {}", self.name)
    }
}

impl OpDef {
    /// The number of tensor inputs under these attributes; `None` where it is free.
    pub fn arity(&self, attrs: &Attrs) -> Option<usize> {
        match (self.variadic, self.input_count) {
            (Some(_), _) => None,
            (None, Some(count)) => Some(count(attrs)),
            (None, None) => Some(self.inputs.len()),
        }
    }

    /// Whether input `i` is a state: written by the call or by its gradient.
    pub fn is_state(&self, i: usize) -> bool {
        self.mutates.contains(&i) || self.states.contains(&i)
    }

    /// How many of `outputs` the user sees.
    #[inline]
    pub fn visible(&self, attrs: &Attrs, outputs: usize) -> usize {
        self.visible.map_or(outputs, |f| f(attrs))
    }

    /// How many outputs a graph's node of this operator has.
    pub fn count(&self, attrs: &Attrs) -> usize {
        self.visible.map_or(1, |f| f(attrs))
    }

    /// How many outputs MXNet's files count for a node, hidden ones included.
    pub fn file_outputs(&self, attrs: &Attrs) -> usize {
        self.file_outputs.map_or_else(|| self.count(attrs), |f| f(attrs))
    }

    /// What output `i` is called after the node's name, of `count` with the hidden ones.
    pub fn output_name(&self, i: usize, count: usize) -> String {
        match self.output_names.get(i) {
            Some(name) => name.to_string(),
            None if count == 1 => "output".to_string(),
            None => format!("output{i}"),
        }
    }

    /// The name of input `i` for messages.
    pub fn input_name(&self, i: usize) -> String {
        match (self.variadic, self.inputs.get(i)) {
            (Some(_), _) => format!("{}{i}", self.inputs[0].name),
            (None, Some(input)) => input.name.to_string(),
            (None, None) => format!("input {i}"),
        }
    }

    pub fn param_index(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|p| p.name == name)
    }

    /// Which values the tape keeps for the gradient.
    pub fn kept(&'static self) -> Keeps {
        match (&self.body, &self.gradient) {
            (Body::Formula { .. }, Gradient::Derived) => *self.formula_keeps.get_or_init(|| {
                let mut keeps = Keeps::of(&[], &[]);
                for derivative in self.derivatives().iter().flatten() {
                    let Body::Formula { formula, .. } = &derivative.body else { continue };
                    let n = formula.arity() - 2;
                    keeps.ins |= (0..n).filter(|j| formula.uses(j + 1)).fold(0, |m, j| m | 1 << j);
                    keeps.outs |= u32::from(formula.uses(n + 1));
                }
                keeps
            }),
            _ => self.keeps,
        }
    }

    /// For each input of a formula, the operator that turns (head, inputs, output) into its gradient.
    pub fn derivatives(&'static self) -> &'static [Option<OpRef>] {
        self.derivatives.get_or_init(|| {
            let Body::Formula { formula, .. } = &self.body else { return Vec::new() };
            (0..formula.arity())
                .map(|i| {
                    let derivative = formula.derivative(i)?;
                    let name = format!("_backward_{}_{i}", self.name.trim_start_matches("_backward_"));
                    Some(&*Box::leak(Box::new(derived(self, name.leak(), derivative))))
                })
                .collect()
        })
    }
}

/// The record of a formula's derivative. It is differentiable in turn.
fn derived(of: &OpDef, name: &'static str, formula: Formula) -> OpDef {
    let mut op = OpBuilder::new(name, "Gradient of a formula.").0;
    op.inputs = (0..formula.arity()).map(|_| Input { name: "data", doc: "" }).collect();
    op.params = of.params.iter().filter(|p| formula.params().contains(&p.name)).cloned().collect();
    op.hidden = true;
    let mut builder = OpBuilder(op);
    builder.set_formula(formula, Shapes::Broadcast);
    builder.0
}

/// Writes a record; the registry takes it when the builder is dropped into it.
pub struct OpBuilder(pub(super) OpDef);

impl OpBuilder {
    pub fn new(name: &'static str, doc: &'static str) -> OpBuilder {
        OpBuilder(OpDef {
            name,
            aliases: Vec::new(),
            methods: Vec::new(),
            doc,
            inputs: Vec::new(),
            variadic: None,
            input_count: None,
            input_names: None,
            params: Vec::new(),
            mutates: Vec::new(),
            states: Vec::new(),
            updates: Vec::new(),
            visible: None,
            file_outputs: None,
            output_names: &[],
            inits: Vec::new(),
            keeps_shape: false,
            views: false,
            infer: Box::new(|s| s.same(0)),
            complete: None,
            body: Body::Kernel(Box::new(|c| {
                Err(mxrs_base::Error::not_implemented(format!("operator {} has no body", c.op.name)))
            })),
            gpu: None,
            gradient: Gradient::Refused,
            keeps: Keeps::ALL,
            equivalent: None,
            inference: None,
            finishes: false,
            cost: None,
            promotes: false,
            random: false,
            trains: false,
            samples: Vec::new(),
            hidden: false,
            derivatives: OnceLock::new(),
            formula_keeps: OnceLock::new(),
        })
    }

    pub fn alias(&mut self, names: &[&'static str]) -> &mut Self {
        self.0.aliases.extend_from_slice(names);
        self
    }
    /// Also a method of NDArray (and Symbol), under its own name and these.
    pub fn method(&mut self, names: &[&'static str]) -> &mut Self {
        self.0.methods.extend_from_slice(names);
        self
    }
    pub fn input(&mut self, name: &'static str, doc: &'static str) -> &mut Self {
        self.0.inputs.push(Input { name, doc });
        self
    }
    /// Any number of inputs; `count` is the parameter that MXNet files keep their number in.
    pub fn variadic(&mut self, name: &'static str, doc: &'static str, count: &'static str) -> &mut Self {
        self.0.variadic = Some(count);
        self.input(name, doc)
    }
    /// Attributes decide how many of the declared inputs there are.
    pub fn input_count(&mut self, count: CountFn) -> &mut Self {
        self.0.input_count = Some(count);
        self
    }
    /// Attributes decide that the inputs are these; an empty answer leaves them as declared.
    pub fn input_names(&mut self, names: NamesFn) -> &mut Self {
        self.0.input_names = Some(names);
        self
    }
    pub fn param(&mut self, param: Param) -> &mut Self {
        self.0.params.push(param);
        self
    }
    pub fn params(&mut self, params: impl IntoIterator<Item = Param>) -> &mut Self {
        self.0.params.extend(params);
        self
    }
    /// Inputs that the operator writes.
    pub fn mutates(&mut self, inputs: &[usize]) -> &mut Self {
        self.0.mutates = inputs.to_vec();
        self
    }
    /// Inputs that are auxiliary states in a graph, written by the gradient and only read here.
    pub fn states(&mut self, inputs: &[usize]) -> &mut Self {
        self.0.states = inputs.to_vec();
        self
    }
    /// Output `o` starts as a copy of input `i`, and the kernel changes it in place.
    pub fn updates(&mut self, pairs: &[(usize, usize)]) -> &mut Self {
        self.0.updates = pairs.to_vec();
        self
    }
    pub fn visible(&mut self, count: CountFn) -> &mut Self {
        self.0.visible = Some(count);
        self
    }
    /// How many outputs MXNet's files count for a node, hidden ones included.
    pub fn file_outputs(&mut self, count: CountFn) -> &mut Self {
        self.0.file_outputs = Some(count);
        self
    }
    pub fn output_names(&mut self, names: &'static [&'static str]) -> &mut Self {
        self.0.output_names = names;
        self
    }
    /// The initializer of the variable that a graph makes for `input`, as the JSON text that files hold.
    pub fn init(&mut self, input: usize, text: &'static str) -> &mut Self {
        self.0.inits.push((input, text));
        self
    }
    /// All inputs and outputs have one shape.
    pub fn keeps_shape(&mut self) -> &mut Self {
        self.0.keeps_shape = true;
        self
    }
    /// The output has the elements of input 0 in their order.
    pub fn views(&mut self) -> &mut Self {
        self.0.views = true;
        self
    }
    pub fn infer(&mut self, rule: impl Fn(&Sig) -> Result<Specs> + Send + Sync + 'static) -> &mut Self {
        self.0.infer = Box::new(rule);
        self
    }
    /// Fills unknown input shapes from known ones: `shapes[i]` is `None` where unknown.
    pub fn complete(
        &mut self,
        rule: impl Fn(&Attrs, &mut [Option<Shape>]) -> Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.complete = Some(Box::new(rule));
        self
    }
    pub fn kernel(&mut self, body: impl Fn(&Ctx) -> Result<()> + Send + Sync + 'static) -> &mut Self {
        self.0.body = Body::Kernel(Box::new(body));
        self
    }
    /// What the kernel launches on a GPU.
    pub fn gpu(&mut self, body: impl Fn(&super::GpuCtx) -> Result<()> + Send + Sync + 'static) -> &mut Self {
        self.0.gpu = Some(Box::new(body));
        self
    }
    /// A body that only moves elements, on the host and on GPUs.
    pub fn moves(
        &mut self,
        body: impl Fn(&super::Movement) -> Result<()> + Send + Sync + Clone + 'static,
    ) -> &mut Self {
        let again = body.clone();
        self.kernel(move |c| body(&super::Movement::host(c))).gpu(move |c| again(&super::Movement::gpu(c)))
    }
    /// Other operators; the gradient follows from theirs.
    pub fn compose(
        &mut self,
        body: impl Fn(&mut dyn Build, &Attrs, &[super::Value]) -> Result<Values> + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.body = Body::Compose(Box::new(body));
        self.0.gradient = Gradient::Derived;
        self
    }
    pub fn grad(
        &mut self,
        rule: impl Fn(&mut dyn Build, &GradArgs) -> Result<Grads> + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.gradient = Gradient::Rule(Box::new(rule));
        self
    }
    /// What the gradient rule looks at; without this call the tape keeps every input and output.
    pub fn keeps(&mut self, ins: &[usize], outs: &[usize]) -> &mut Self {
        self.0.keeps = Keeps::of(ins, outs);
        self
    }
    pub fn zero_grad(&mut self) -> &mut Self {
        self.0.gradient = Gradient::Zero;
        self.0.keeps = Keeps::of(&[], &[]);
        self
    }
    /// The same result out of differentiable operators, for derivatives of the result.
    pub fn equivalent(
        &mut self,
        body: impl Fn(&mut dyn Build, &Attrs, &[super::Value]) -> Result<Values> + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.equivalent = Some(Box::new(body));
        self
    }
    /// What the call becomes in a graph that neither trains nor has gradients: simpler operators, which the graph can
    /// fuse with their neighbours. `None` leaves the call as it is. Graphs compute it, calls on arrays do not.
    pub fn inference(
        &mut self,
        form: impl Fn(&mut dyn Build, &Attrs, &[super::Value]) -> Result<Option<Values>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.0.inference = Some(Box::new(form));
        self
    }
    /// The kernel tells [`super::Ctx::finish`] which parts of its output are done, so that formulas can be fused behind it.
    pub fn finishes(&mut self) -> &mut Self {
        self.0.finishes = true;
        self
    }
    /// Estimated nanoseconds of one run on one core; without it, one per element touched.
    pub fn cost(&mut self, estimate: impl Fn(&Sig, &[Spec]) -> f64 + Send + Sync + 'static) -> &mut Self {
        self.0.cost = Some(Box::new(estimate));
        self
    }
    pub fn promotes(&mut self) -> &mut Self {
        self.0.promotes = true;
        self
    }
    pub fn random(&mut self) -> &mut Self {
        self.0.random = true;
        self
    }
    pub fn trains(&mut self) -> &mut Self {
        self.0.trains = true;
        self
    }
    pub fn hidden(&mut self) -> &mut Self {
        self.0.hidden = true;
        self
    }
    pub fn sample(&mut self, inputs: &[SampleInput], attrs: &[(&'static str, AttrValue)]) -> &mut Self {
        self.0.samples.push(Sample { inputs: inputs.to_vec(), attrs: attrs.to_vec() });
        self
    }

    /// A formula of the declared inputs; its named parameters must be declared before.
    pub fn formula(
        &mut self,
        shapes: Shapes,
        body: impl FnOnce(&mxrs_formula::Args) -> mxrs_formula::E,
    ) -> &mut Self {
        let names: Vec<&'static str> = self.0.params.iter().map(|p| p.name).collect();
        let formula = Formula::build(self.0.inputs.len(), &names, body);
        self.set_formula(formula, shapes);
        self
    }

    fn set_formula(&mut self, formula: Formula, shapes: Shapes) {
        self.0.infer = match shapes {
            Shapes::Same => Box::new(|s| s.elementwise()),
            Shapes::Broadcast => Box::new(|s| s.broadcast()),
        };
        self.0.keeps_shape = shapes == Shapes::Same;
        self.0.promotes = formula.arity() > 1;
        self.0.body = Body::Formula { formula, shapes };
        self.0.gradient = Gradient::Derived;
        self.0.keeps = Keeps::ALL;
    }

    /// One input named `data`, and the formula of its element.
    pub fn unary(&mut self, f: impl FnOnce(mxrs_formula::E) -> mxrs_formula::E) -> &mut Self {
        self.input("data", "values of any shape").formula(Shapes::Same, |a| f(a.x(0)))
    }

    /// Two inputs named `lhs` and `rhs`.
    pub fn binary(
        &mut self,
        shapes: Shapes,
        f: impl FnOnce(mxrs_formula::E, mxrs_formula::E) -> mxrs_formula::E,
    ) -> &mut Self {
        self.input("lhs", "the first operand").input("rhs", "the second operand");
        self.formula(shapes, |a| f(a.x(0), a.x(1)))
    }
}

/// A short list of one value, the commonest result of a rule.
pub fn one<T>(v: T) -> SmallVec<[T; 2]> {
    let mut out = SmallVec::new();
    out.push(v);
    out
}
