//! Products against those of the CPU.

use crate::shaders::elem::Span;
use crate::shaders::epilogue::{Bias, Epilogue, Finish};
use crate::shaders::matmul::{Product, launch_matmul};
use crate::shaders::testing::*;
use mxrs_base::{DType, f16};
use mxrs_formula::Formula;
use mxrs_gpu::Device;
use mxrs_kernels::gemm;

fn cpu(ta: bool, tb: bool, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], batch: usize) -> Vec<f32> {
    let mut c = vec![0.0; batch * m * n];
    let product = gemm::Product::dense(ta, tb, m, n, k);
    for i in 0..batch {
        let (a, b) = (&a[i * m * k..][..m * k], &b[i * k * n..][..k * n]);
        gemm::gemm(&product, 1.0, a, b, 0.0, &mut c[i * m * n..][..m * n]);
    }
    c
}

fn spans<'a>(buffer: &'a mxrs_gpu::Buffer) -> Span<'a> {
    Span::new(buffer, DType::F32)
}

fn case(d: &Device, ta: bool, tb: bool, (m, n, k): (usize, usize, usize), batch: usize) {
    let (a, b) = (numbers(batch * m * k, 1), numbers(batch * k * n, 2));
    let (x, y, z) = (upload(d, &a), upload(d, &b), upload(d, &vec![9.0f32; batch * m * n]));
    let product = Product::dense(ta, tb, m, n, k, batch);
    launch_matmul(d, &product, spans(&x), spans(&y), spans(&z), &Epilogue::NONE, "dot").unwrap();
    let what = format!("{ta} {tb} {m} {n} {k} x {batch}");
    assert_close(&download::<f32>(d, &z), &cpu(ta, tb, (m, n, k), &a, &b, batch), 3e-6, &what);
}

#[test]
fn products_agree_with_the_cpu() {
    on_devices(|d| {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            for size in [(1, 1, 1), (3, 5, 7), (33, 65, 17), (16, 100, 40), (100, 9, 70), (64, 64, 64)] {
                case(d, ta, tb, size, 1);
            }
            case(d, ta, tb, (5, 19, 23), 3);
            // A few rows or columns.
            case(d, ta, tb, (1, 70, 300), 1);
            case(d, ta, tb, (130, 3, 500), 2);
            // Long sums are cut into parts.
            case(d, ta, tb, (20, 30, 3000), 2);
            // Large enough for the large tile, with edges.
            if ta == tb {
                case(d, ta, tb, (1420, 1410, 9), 1);
            }
        }
        case(d, false, false, (4, 6, 0), 1);
    });
}

#[test]
fn epilogues_follow_the_sum() {
    on_devices(|d| {
        let (m, n, k) = (21, 35, 18);
        let (a, b, c, rows, cols) =
            (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3), numbers(m, 4), numbers(n, 5));
        let (x, y) = (upload(d, &a), upload(d, &b));
        let (r, s) = (upload(d, &rows), upload(d, &cols));
        let leaky =
            Formula::build(1, &["slope"], |a| a.x(0).gt(0.0).select(a.x(0), a.x(0) * a.param("slope")));
        let sums = cpu(false, true, (m, n, k), &a, &b, 1);
        for (bias, alpha, beta, finish) in [
            (Bias::Rows(spans(&r)), 1.0, 0.0, None),
            (Bias::Cols(spans(&s)), 0.5, 0.0, Some(Finish::of(&leaky, &[0.1]))),
            (Bias::None, 2.0, 0.5, None),
            (Bias::Cols(spans(&s)), 1.0, -1.0, None),
        ] {
            let z = upload(d, &c);
            let product = Product::dense(false, true, m, n, k, 1);
            let epilogue = Epilogue { alpha, beta, bias, finish };
            launch_matmul(d, &product, spans(&x), spans(&y), spans(&z), &epilogue, "fc").unwrap();
            let want: Vec<f32> = (0..m * n)
                .map(|e| {
                    let add = match bias {
                        Bias::None => 0.0,
                        Bias::Rows(_) => rows[e / n],
                        Bias::Cols(_) => cols[e % n],
                    };
                    let v = alpha * sums[e] + beta * c[e] + add;
                    if finish.is_some() && v <= 0.0 { 0.1 * v } else { v }
                })
                .collect();
            assert_close(&download::<f32>(d, &z), &want, 3e-6, &format!("{epilogue:?}"));
        }
        // Accumulation of a sum that is cut.
        let (a, b) = (numbers(4 * 2000, 6), numbers(2000 * 5, 7));
        let (x, y, z) = (upload(d, &a), upload(d, &b), upload(d, &[1.0f32; 20]));
        let product = Product::dense(false, false, 4, 5, 2000, 1);
        let epilogue = Epilogue { beta: 1.0, ..Epilogue::NONE };
        launch_matmul(d, &product, spans(&x), spans(&y), spans(&z), &epilogue, "dot").unwrap();
        let want: Vec<f32> = cpu(false, false, (4, 5, 2000), &a, &b, 1).iter().map(|v| v + 1.0).collect();
        assert_close(&download::<f32>(d, &z), &want, 3e-6, "accumulated");
    });
}

#[test]
fn strides_batches_and_halves() {
    on_devices(|d| {
        // One b for the whole batch, rows of c further apart than they are long.
        let (m, n, k, batch) = (6, 10, 8, 3);
        let (a, b) = (numbers(batch * m * k, 1), numbers(k * n, 2));
        let (x, y, z) = (upload(d, &a), upload(d, &b), upload(d, &vec![0.0f32; batch * m * 12]));
        let mut product = Product::dense(false, false, m, n, k, batch);
        product.b[2] = 0;
        product.c = [12, 1, m * 12];
        launch_matmul(d, &product, spans(&x), spans(&y), spans(&z), &Epilogue::NONE, "dot").unwrap();
        let want = cpu(false, false, (m, n, k), &a, &b.repeat(batch), batch);
        let got = download::<f32>(d, &z);
        for row in 0..batch * m {
            assert_close(&got[row * 12..][..n], &want[row * n..][..n], 3e-6, "row");
            assert_eq!(got[row * 12 + n..][..2], [0.0; 2]);
        }
        if d.features().f16 {
            let half = |v: &[f32]| v.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>();
            let (a, b) = (half(&a[..m * k]), half(&b));
            let (x, y, z) = (upload(d, &a), upload(d, &b), upload(d, &vec![f16::default(); m * n]));
            let span = |b| Span::new(b, DType::F16);
            let product = Product::dense(false, false, m, n, k, 1);
            launch_matmul(d, &product, span(&x), span(&y), span(&z), &Epilogue::NONE, "dot").unwrap();
            let mut want = vec![f16::default(); m * n];
            gemm::gemm(
                &gemm::Product::dense(false, false, m, n, k),
                f16::from_f32(1.0),
                &a,
                &b,
                f16::default(),
                &mut want,
            );
            let floats = |v: &[f16]| v.iter().map(|v| v.to_f64() as f32).collect::<Vec<_>>();
            assert_close(&floats(&download::<f16>(d, &z)), &floats(&want), 1e-3, "half");
        }
        let error = launch_matmul(
            d,
            &Product::dense(false, false, 1, 1, 1, 1),
            Span::new(&x, DType::I32),
            spans(&y),
            spans(&z),
            &Epilogue::NONE,
            "dot",
        );
        assert!(error.unwrap_err().message().contains("dot: a product of int32"));
    });
}
