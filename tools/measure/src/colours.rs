//! One home for colours: an order has the same in every picture, and so has a queue depth.

use lnp_link::Order;
use plotters::style::RGBColor;

/// The dense stream, which is no order.
pub(crate) const DENSE: RGBColor = RGBColor(120, 120, 120);
/// The bound, which is none either.
pub(crate) const BOUND: RGBColor = RGBColor(0, 0, 0);

/// Colours that can be told apart, also by most of those who see fewer (Okabe and Ito; the last but one by
/// Tol).
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(51, 34, 136),
    RGBColor(140, 109, 49),
];

/// Of an order, whatever it is made for.
pub(crate) fn of_order(order: Order) -> RGBColor {
    match order {
        Order::Identity => PALETTE[0],
        Order::Frequency => PALETTE[1],
        Order::Greedy => PALETTE[2],
        Order::Refined | Order::Copies { .. } => PALETTE[3],
        Order::Jaccard => PALETTE[4],
        Order::Miss => PALETTE[5],
        Order::Replicas { .. } => PALETTE[6],
        Order::Bisect => PALETTE[7],
        Order::Random { .. } => RGBColor(170, 170, 170),
    }
}

/// Of the `at`-th of what are no orders: depths (by powers of two), percentiles.
pub(crate) fn of_number(at: usize) -> RGBColor {
    PALETTE[at % PALETTE.len()]
}
