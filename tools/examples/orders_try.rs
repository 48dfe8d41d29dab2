use lnp::links::{LayerActivity, hot, price::*, pairs::Weight, greedy::chains_of, refine::refine};
use lnp::trace::TraceReader;
use rayon::prelude::*;
use std::path::Path;
fn main() {
    let model = std::env::args().nth(1).unwrap();
    let dir = format!("/work/shared/models/{model}/traces");
    let corpora = ["alpaca", "wikitext2", "gsm8k"];
    let open = |c: &str, s: &str| TraceReader::open(Path::new(&format!("{dir}/{c}.{s}.safetensors"))).unwrap();
    let prof: Vec<_> = corpora.iter().map(|c| open(c, "profile")).collect();
    let test: Vec<_> = corpora.iter().map(|c| open(c, "test")).collect();
    let (layers, n) = (prof[0].layers(), prof[0].neurons());
    let acts: Vec<LayerActivity> = (0..layers).map(|l| {
        let bits: Vec<Vec<u8>> = prof.iter().map(|t| t.layer_bits(l).unwrap()).collect();
        let sl: Vec<(&[u8], usize)> = bits.iter().zip(&prof).map(|(b, t)| (b.as_slice(), t.tokens())).collect();
        LayerActivity::from_bits(n, &sl).unwrap()
    }).collect();
    let counts: Vec<Vec<u32>> = acts.iter().map(|a| a.active_count().to_vec()).collect();
    let hots = hot::hot_sets(&counts, hot::hot_bundles(layers, n, 0.1));
    let obj = Objective { law: lnp::device::LawText::ONEPLUS_12.law().unwrap(), bundle_bytes: 4096 };
    let show = |name: &str, orders: &[Vec<u32>], on: &[TraceReader]| {
        let mut per_layer = vec![0.0; layers];
        let mut sum = 0.0; 
        let mut each = vec![];
        for t in on {
            let ps: Vec<f64> = (0..layers).into_par_iter().map(|l| {
                let bits = t.layer_bits(l).unwrap();
                let mut slot = vec![0u32; n];
                for (s, &i) in orders[l].iter().enumerate() { slot[i as usize] = s as u32; }
                price_layer(&obj, bits.chunks(n.div_ceil(8)), &slot, &hots[l]).unwrap().us_per_token()
            }).collect();
            for l in 0..layers { per_layer[l] += ps[l] / on.len() as f64; }
            let tot: f64 = ps.iter().sum(); each.push(tot.round()); sum += tot / on.len() as f64;
        }
        println!("{name:24} {sum:8.1}  {each:?} {:?}", per_layer.iter().map(|x| x.round()).collect::<Vec<_>>());
        sum
    };
    let mut all = |name: &str, f: &(dyn Fn(usize, &LayerActivity, &[u32]) -> Vec<u32> + Sync), pin: bool| {
        let t0 = std::time::Instant::now();
        let orders: Vec<Vec<u32>> = (0..layers).into_par_iter().map(|l| {
            let members: Vec<u32> = (0..n as u32).filter(|&i| !pin || !hots[l][i as usize]).collect();
            let mut o = f(l, &acts[l], &members);
            if pin { o.extend((0..n as u32).filter(|&i| hots[l][i as usize])); }
            o
        }).collect();
        let s = t0.elapsed().as_secs_f64();
        show(&format!("{name}{} test {s:.1}s", if pin { " pin" } else { "" }), &orders, &test);
        if std::env::var("PROF").is_ok() { show("     on profile", &orders, &prof); }
    };
    all("identity", &|_, _, m| m.to_vec(), false);
    for pin in [false, true] {
        all("frequency", &|_, a, m| { let mut m = m.to_vec(); m.sort_by_key(|&i| std::cmp::Reverse(a.count(i as usize))); m }, pin);
        all("greedy", &|_, a, m| chains_of(a, m, Weight::Count).0, pin);
        all("jaccard", &|_, a, m| chains_of(a, m, Weight::Jaccard).0, pin);
        if pin {
            all("refined greedy", &|_, a, m| refine(a, &obj, chains_of(a, m, Weight::Count).0).0, pin);
            all("refined jaccard", &|_, a, m| refine(a, &obj, chains_of(a, m, Weight::Jaccard).0).0, pin);
            all("refined freq", &|_, a, m| { let mut m = m.to_vec(); m.sort_by_key(|&i| std::cmp::Reverse(a.count(i as usize))); refine(a, &obj, m).0 }, pin);
        }
    }
}
