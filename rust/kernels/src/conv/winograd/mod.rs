//! Convolutions by 3x3 windows with fewer products: Winograd's F(4x4, 3x3).
//!
//! A tile of 4x4 outputs needs 36 products instead of 144: its 6x6 inputs and the 3x3 weights are transformed to 36 points,
//! multiplied point by point (36 matrix products over channels), and transformed back. The sums are rounded a few times more than
//! the definition's: errors are of the order of 1e-6 of the largest term in single precision. [`forward`] computes outputs and, with a turned
//! weight, data gradients; [`weight`] the weight gradient; [`tiles`] cuts images up and [`transform`] has the maps.

mod forward;
#[cfg(test)]
mod tests;
mod tiles;
mod transform;
mod weight;

pub use forward::forward;
pub use weight::weight_grad;

use super::geom::ConvGeom;
use tiles::Tiling;
use transform::TILE;

/// Channels and filters below which the transforms cost more than they save.
const FEW_CHANNELS: usize = 32;
/// Tiles below which transforming and reading the weight is not worth while.
const FEW_TILES: usize = 96;

/// Whether this room computes the convolution.
pub fn takes(g: &ConvGeom) -> bool {
    let fits = g.kernel == [1, 3, 3]
        && g.stride == [1; 3]
        && g.dilate == [1; 3]
        && g.groups == 1
        && g.pad[0] == 0
        && g.in_dims[0] == 1
        && g.pad[1] <= 2
        && g.pad[2] <= 2;
    if !fits || g.channels.min(g.filters) < FEW_CHANNELS {
        return false;
    }
    let tiles = Tiling::new(g).tiles();
    // Tiles that stick out of the image are computed in vain.
    tiles >= FEW_TILES && 5 * tiles * TILE * TILE <= 7 * g.batch * g.out_plane()
}
