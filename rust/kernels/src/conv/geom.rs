//! The sizes of a convolution, checked once.

use mxrs_base::{Error, Result};

/// A convolution's sizes; dimensions beyond the actual one to three stand in front with extent 1.
///
/// Data is `(batch, channels, in_dims...)`, weight `(filters, channels / groups, kernel...)`, output
/// `(batch, filters, out_dims...)`. Only the constructors make one, so every size below fits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct ConvGeom {
    pub batch: usize,
    pub channels: usize,
    pub filters: usize,
    pub groups: usize,
    pub in_dims: [usize; 3],
    pub out_dims: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilate: [usize; 3],
    pub pad: [usize; 3],
}

/// The window of a convolution: one to three numbers each, as many as the data has spatial dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub kernel: &'a [usize],
    pub stride: &'a [usize],
    pub dilate: &'a [usize],
    pub pad: &'a [usize],
}

/// `dims` behind as many `fill` as make three.
fn three(name: &str, dims: &[usize], ndim: usize, fill: usize) -> Result<[usize; 3]> {
    if dims.len() != ndim || ndim == 0 || ndim > 3 {
        return Err(Error::op(format!(
            "{name} {dims:?} has {} numbers; one for each of the {ndim} spatial dimensions is needed (1 to 3)",
            dims.len()
        )));
    }
    let mut out = [fill; 3];
    out[3 - ndim..].copy_from_slice(dims);
    Ok(out)
}

/// The extent a kernel covers with its gaps.
fn reach(kernel: usize, dilate: usize) -> Result<usize> {
    let span = (kernel - 1).checked_mul(dilate).and_then(|n| n.checked_add(1));
    span.ok_or_else(|| Error::op(format!("kernel {kernel} with dilate {dilate} exceeds the address space")))
}

impl ConvGeom {
    /// A convolution over `in_dims` (one to three spatial extents).
    ///
    /// Refuses windows of zero size or stride, kernels that reach beyond the padded input, groups that do not divide
    /// channels and filters, and sizes beyond memory.
    pub fn new(
        batch: usize,
        (channels, filters, groups): (usize, usize, usize),
        in_dims: &[usize],
        window: Window<'_>,
    ) -> Result<ConvGeom> {
        let mut g = ConvGeom::unsized_window((batch, channels, filters, groups), in_dims, window)?;
        for i in 0..3 {
            let padded = padded_extent(g.in_dims[i], g.pad[i])?;
            let reach = reach(g.kernel[i], g.dilate[i])?;
            if reach > padded {
                return Err(Error::op(format!(
                    "kernel {:?} with dilate {:?} reaches {reach} elements; the padded input has {padded} \
                     (data {in_dims:?}, pad {:?}): at most that is allowed",
                    window.kernel, window.dilate, window.pad
                )));
            }
            g.out_dims[i] = (padded - reach) / g.stride[i] + 1;
        }
        g.check_sizes()?;
        Ok(g)
    }

    /// The convolution whose data gradient is a deconvolution (transposed convolution).
    ///
    /// `channels` and `in_dims` are the deconvolution's input, `filters` its output channels; the result's `filters` are
    /// those channels and its `in_dims` the deconvolution's output extents,
    /// `(in - 1) * stride + dilate * (kernel - 1) + 1 - 2 * pad + adj`, with `adj` below the stride.
    pub fn deconvolution(
        batch: usize,
        (channels, filters, groups): (usize, usize, usize),
        in_dims: &[usize],
        window: Window<'_>,
        adj: &[usize],
    ) -> Result<ConvGeom> {
        let mut g = ConvGeom::unsized_window((batch, filters, channels, groups), in_dims, window)?;
        let adj = three("adj", adj, in_dims.len(), 0)?;
        g.out_dims = g.in_dims;
        for (i, adj) in adj.into_iter().enumerate() {
            if adj >= g.stride[i] {
                return Err(Error::op(format!(
                    "adj {adj} must be smaller than stride {}; allowed are 0 to {}",
                    g.stride[i],
                    g.stride[i] - 1
                )));
            }
            let full = g.out_dims[i].checked_sub(1).and_then(|n| n.checked_mul(g.stride[i]));
            let full =
                full.and_then(|n| n.checked_add(reach(g.kernel[i], g.dilate[i]).ok()?)?.checked_add(adj));
            let out = full.and_then(|n| n.checked_sub(g.pad[i].checked_mul(2)?)).filter(|n| *n > 0);
            g.in_dims[i] = out.ok_or_else(|| {
                Error::op(format!(
                    "a deconvolution of {in_dims:?} with kernel {:?}, stride {:?}, pad {:?} has an output without elements \
                     or beyond memory; allowed is pad below half of (in - 1) * stride + kernel",
                    window.kernel, window.stride, window.pad
                ))
            })?;
        }
        g.check_sizes()?;
        Ok(g)
    }

    /// Everything but the dimensions the window leads to.
    fn unsized_window(
        (batch, channels, filters, groups): (usize, usize, usize, usize),
        in_dims: &[usize],
        window: Window<'_>,
    ) -> Result<ConvGeom> {
        let n = in_dims.len();
        let g = ConvGeom {
            batch,
            channels,
            filters,
            groups,
            in_dims: three("data", in_dims, n, 1)?,
            out_dims: [0; 3],
            kernel: three("kernel", window.kernel, n, 1)?,
            stride: three("stride", window.stride, n, 1)?,
            dilate: three("dilate", window.dilate, n, 1)?,
            pad: three("pad", window.pad, n, 0)?,
        };
        for (name, given) in [("kernel", window.kernel), ("stride", window.stride), ("dilate", window.dilate)]
        {
            if given.contains(&0) {
                return Err(Error::op(format!("{name} {given:?} contains 0; 1 or more is allowed")));
            }
        }
        if filters == 0 {
            return Err(Error::op("num_filter is 0; 1 or more is allowed"));
        }
        if groups == 0 || !channels.is_multiple_of(groups) || !filters.is_multiple_of(groups) {
            return Err(Error::op(format!(
                "num_group {groups} does not divide both {channels} channels and {filters} filters; a common divisor is allowed"
            )));
        }
        Ok(g)
    }

    fn check_sizes(&self) -> Result<()> {
        let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)));
        let dims = |first: [usize; 2], dims: [usize; 3]| product(&[&first[..], &dims[..]].concat());
        let padded: [usize; 3] =
            [0, 1, 2].map(|i| self.in_dims[i].saturating_add(self.pad[i].saturating_mul(2)));
        let all = [
            dims([self.batch, self.channels], padded),
            dims([self.batch, self.filters], self.out_dims),
            dims([self.filters, self.channels], self.kernel),
            // The panels of one image.
            dims([self.channels, product(&self.out_dims).unwrap_or(usize::MAX)], self.kernel),
        ];
        if all.iter().all(|n| n.is_some_and(|n| n <= 1 << 58)) {
            return Ok(());
        }
        Err(Error::memory(format!(
            "a convolution of {} x {} x {:?} with kernel {:?} and pad {:?} has more elements than memory can address",
            self.batch, self.channels, self.in_dims, self.kernel, self.pad
        )))
    }

    /// Channels of one group.
    pub fn group_channels(&self) -> usize {
        self.channels / self.groups
    }
    /// Filters of one group.
    pub fn group_filters(&self) -> usize {
        self.filters / self.groups
    }
    /// Elements of one channel of the data.
    pub fn in_plane(&self) -> usize {
        self.in_dims.iter().product()
    }
    /// Elements of one filter's output.
    pub fn out_plane(&self) -> usize {
        self.out_dims.iter().product()
    }
    /// Elements of the kernel over one channel.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
    /// The summed index of the forward product: taps of all channels of a group.
    pub fn depth(&self) -> usize {
        self.group_channels() * self.taps()
    }
    pub fn data_len(&self) -> usize {
        self.batch * self.channels * self.in_plane()
    }
    pub fn weight_len(&self) -> usize {
        self.filters * self.depth()
    }
    pub fn out_len(&self) -> usize {
        self.batch * self.filters * self.out_plane()
    }
    /// Whether every output element sees exactly the input element at its own place.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.stride == [1; 3] && self.pad == [0; 3]
    }
}

fn padded_extent(extent: usize, pad: usize) -> Result<usize> {
    let padded = pad.checked_mul(2).and_then(|p| p.checked_add(extent));
    padded.ok_or_else(|| Error::op(format!("pad {pad} of an extent of {extent} exceeds the address space")))
}
