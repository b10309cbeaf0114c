//! What an adapter of either format changes, worked out by hand, and what cannot be read.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn a_linear_of_either_format_by_hand() {
    // A weight of 3 rows and 2 columns, rank 2.
    let (a, b) = ([1., 2., 3., 4.], [1., 2., 3., 4., 5., 6.]);
    let adapter = mlx(json!({}), &[("q.lora_a", &[2, 2], &a), ("q.lora_b", &[2, 3], &b)]).unwrap();
    let expected = Lora { a: vec![1., 3., 2., 4.], b: b.to_vec(), scale: 2.0, rank: 2, magnitude: None };
    assert_eq!(low_rank(&adapter, "q.weight"), [Some(expected.clone())]);
    assert_eq!((adapter.update("q.bias").unwrap(), adapter.update("k.weight").unwrap()), (None, None));

    let (a, b) = ([1., 3., 2., 4.], [1., 4., 2., 5., 3., 6.]);
    let names = ["base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"];
    let adapter = peft(json!({}), &[(names[0], &[2, 2], &a), (names[1], &[3, 2], &b)]).unwrap();
    assert_eq!(low_rank(&adapter, "q.weight"), [Some(expected)]);
}

#[test]
fn an_embedding_of_either_format_by_hand() {
    // 3 tokens of 2 dimensions, rank 1: the weight gets scale · [1, 2, 3]ᵀ · [5, 7].
    let expected = Lora { a: vec![5., 7.], b: vec![1., 2., 3.], scale: 4.0, rank: 1, magnitude: None };
    let config = json!({"lora_parameters": {"scale": 4.0}});
    let name = "model.embed_tokens";
    let mlx = mlx(
        config,
        &[
            (&format!("{name}.lora_a"), &[3, 1], &[1., 2., 3.]),
            (&format!("{name}.lora_b"), &[1, 2], &[5., 7.]),
        ],
    );
    assert_eq!(low_rank(&mlx.unwrap(), "model.embed_tokens.weight"), [Some(expected.clone())]);
    let prefix = "base_model.model.model.embed_tokens";
    let peft = peft(
        json!({"r": 1}),
        &[
            (&format!("{prefix}.base_layer.weight"), &[3, 2], &[9.; 6]),
            (&format!("{prefix}.lora_embedding_A"), &[1, 3], &[1., 2., 3.]),
            (&format!("{prefix}.lora_embedding_B"), &[2, 1], &[5., 7.]),
        ],
    );
    match peft.unwrap().update("model.embed_tokens.weight").unwrap() {
        Some(Update::ReplaceThenAdd(whole, lora)) => assert_eq!((whole.shape, lora), (vec![3, 2], expected)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn stacks_of_experts_by_hand() {
    // Two experts, rank 1, 2 columns, 3 rows; stacked, and in the flat form of older adapters.
    let (a, b) = ([1., 2., 3., 4.], [1., 2., 3., 4., 5., 6.]);
    for shape in [&[2, 1, 2][..], &[2, 2]] {
        let mut adapter = mlx(json!({}), &[("m.lora_a", shape, &a), ("m.lora_b", &[2, 3, 1], &b)]).unwrap();
        let loras = low_rank(&adapter, "m.weight");
        let second = Lora { a: vec![3., 4.], b: vec![4., 5., 6.], scale: 2.0, rank: 1, magnitude: None };
        assert_eq!((loras.len(), loras[1].as_ref()), (2, Some(&second)));
        adapter.place(&base(&[("m.weight", &[2, 3, 2])])).unwrap();
    }
}

#[test]
fn whole_tensors_take_the_place_of_weights() {
    let full = json!({"fine_tune_type": "full", "lora_parameters": null});
    let adapter = mlx(full, &[("norm.weight", &[2], &[1., 2.]), ("q.bias", &[1], &[3.])]).unwrap();
    let whole = |values: &[f32]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Some(Update::Replace(Whole { float: Float::F32, shape: vec![values.len()], bytes }))
    };
    assert_eq!(adapter.update("norm.weight").unwrap(), whole(&[1., 2.]));
    let saved = [
        ("base_model.model.norm.modules_to_save.weight", &[2][..], &[1., 2.][..]),
        ("base_model.model.q.base_layer.bias", &[1], &[3.]),
    ];
    let mut adapter = peft(json!({"modules_to_save": ["norm"], "bias": "all"}), &saved).unwrap();
    assert_eq!(adapter.update("norm.weight").unwrap(), whole(&[1., 2.]));
    assert_eq!(adapter.update("q.bias").unwrap(), whole(&[3.]));
    adapter.place(&base(&[("norm.weight", &[2]), ("q.bias", &[1])])).unwrap();
    let resized = adapter.place(&base(&[("norm.weight", &[3]), ("q.bias", &[1])]));
    assert!(
        refusal(resized)
            .ends_with("updates [2], but `norm.weight` is [3]; was the vocabulary resized while training?")
    );
}

#[test]
fn dora_carries_its_magnitudes() {
    let dora = json!({"fine_tune_type": "dora"});
    let factors: [Tensor<'_>; 2] = [("q.lora_a", &[2, 1], &[1., 2.]), ("q.lora_b", &[1, 2], &[3., 4.])];
    let tensors = [factors[0], factors[1], ("q.m", &[2], &[5., 6.])];
    let lora = low_rank(&mlx(dora.clone(), &tensors).unwrap(), "q.weight");
    assert_eq!(lora[0].as_ref().unwrap().magnitude, Some(vec![5., 6.]));
    assert!(refusal(mlx(json!({}), &tensors)).contains("`q.m` is a magnitude of DoRA"));
    assert!(refusal(mlx(dora.clone(), &factors)).contains("has no magnitude `q.m`"));
    let short = [factors[0], factors[1], ("q.m", &[1], &[5.][..])];
    assert!(refusal(mlx(dora, &short)).contains("`q.m` is [1], but the weight that it scales has 2 rows"));

    let factors: [Tensor<'_>; 2] =
        [("q.lora_A.weight", &[2, 2], &[1.; 4]), ("q.lora_B.weight", &[2, 2], &[1.; 4])];
    let tensors = [factors[0], factors[1], ("q.lora_magnitude_vector", &[2], &[5., 6.][..])];
    let lora = low_rank(&peft(json!({"use_dora": true}), &tensors).unwrap(), "q.weight");
    assert_eq!(lora[0].as_ref().unwrap().magnitude, Some(vec![5., 6.]));
    assert!(refusal(peft(json!({"use_dora": true}), &factors)).contains("has no `lora_magnitude_vector`"));
    assert!(refusal(peft(json!({}), &tensors)).contains("does not have `use_dora`"));
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let a: Tensor<'_> = ("q.lora_a", &[2, 1], &[1.; 2]);
    let b: Tensor<'_> = ("q.lora_b", &[1, 2], &[1.; 2]);
    assert!(refusal(mlx(json!({}), &[a])).contains("`q.lora_a` has no `lora_b` beside it"));
    assert!(
        refusal(mlx(json!({}), &[a, b, ("n.weight", &[1], &[1.])]))
            .contains("whole tensors need `fine_tune_type: full`")
    );
    assert!(
        refusal(mlx(json!({"lora_parameters": {"alpha": 16}}), &[a, b]))
            .contains("it has `alpha`, but in mlx-lm `scale`")
    );
    assert!(
        refusal(mlx(json!({"fine_tune_type": "prefix"}), &[a, b])).contains("`fine_tune_type` \"prefix\"")
    );
    assert!(
        refusal(mlx(json!({}), &[("q.lora_a", &[0, 0], &[]), ("q.lora_b", &[0, 2], &[])]))
            .contains("are empty")
    );
    assert!(refusal(mlx(json!({}), &[])).contains("holds no update"));
    for value in [f32::NAN, f32::INFINITY] {
        let adapter = mlx(json!({}), &[a, ("q.lora_b", &[1, 2], &[1., value])]).unwrap();
        let said = format!("`q.lora_b` holds {value} at element 1: an adapter must be finite");
        assert_eq!((refusal(adapter.check()), refusal(adapter.update("q.weight"))), (said.clone(), said));
    }
    let names = ["q.lora_A.one.weight", "q.lora_B.two.weight"];
    let two = peft(json!({}), &[(names[0], &[2, 1], &[1.; 2]), (names[1], &[1, 2], &[1.; 2])]);
    assert!(refusal(two).contains("holds two adapters: `one` and `two`"));
    let twice = peft(
        json!({}),
        &[("base_model.model.n.weight", &[1], &[1.]), ("n.modules_to_save.weight", &[1], &[1.])],
    );
    assert!(refusal(twice).contains("are for the same weight"));
    let conv = peft(
        json!({}),
        &[("c.lora_A.weight", &[2, 1, 1], &[1.; 2]), ("c.lora_B.weight", &[1, 2, 1], &[1.; 2])],
    );
    assert!(refusal(conv).contains("merges no convolutions"));
}

#[test]
fn the_files_tell_the_format() {
    let both = folder(MLX_FILE, &json!({}), &[]);
    write(&both.path().join(PEFT_FILE), &[]);
    assert!(refusal(Adapter::open(both.path())).contains("holds both adapters.safetensors (mlx-lm) and"));
    fs::remove_file(both.path().join(PEFT_FILE)).unwrap();
    fs::rename(both.path().join(MLX_FILE), both.path().join("adapter_model.bin")).unwrap();
    assert!(refusal(Adapter::open(both.path())).contains("adapter_model.bin is a pickle"));
}

/// The values of a `[rows, columns]` tensor.
fn table(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    (0..rows * columns).map(|at| value(at / columns, at % columns)).collect()
}

proptest! {
    #[test]
    fn both_formats_give_the_same_update(
        rank in 1usize..4,
        [inputs, outputs] in [1usize..6, 1usize..6],
        numbers in prop::collection::vec(-9.0f32..9.0, 64),
    ) {
        let (a, b) = (|k: usize, i: usize| numbers[k * 8 + i], |k: usize, o: usize| numbers[32 + k * 8 + o]);
        let mlx = mlx(json!({"lora_parameters": {"scale": 0.3, "rank": rank}}), &[
            ("model.q.lora_a", &[inputs, rank], &table(inputs, rank, |i, k| a(k, i))),
            ("model.q.lora_b", &[rank, outputs], &table(rank, outputs, b)),
        ]).unwrap();
        let prefix = "base_model.model.model.q";
        let peft = peft(json!({"r": rank, "lora_alpha": 0.3 * rank as f64}), &[
            (&format!("{prefix}.lora_A.weight"), &[rank, inputs], &table(rank, inputs, a)),
            (&format!("{prefix}.lora_B.weight"), &[outputs, rank], &table(outputs, rank, |o, k| b(k, o))),
        ]).unwrap();
        prop_assert_eq!(low_rank(&mlx, "model.q.weight"), low_rank(&peft, "model.q.weight"));
    }

    #[test]
    fn no_name_and_no_shape_panics(
        name in r"((model|layers|experts|modules_to_save|[0-9]{1,20}|lora_[abAB]|weight|m)\.?){1,9}",
        shapes in prop::collection::vec(prop::collection::vec(0usize..3, 0..4), 3),
    ) {
        let values = [1.0; 8];
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        for names in [["q.lora_a", "q.lora_b"], ["q.lora_A.weight", "q.lora_B.weight"]] {
            let names = [name.as_str(), names[0], names[1]];
            let tensors: Vec<Tensor<'_>> =
                names.iter().zip(&shapes).map(|(name, shape)| (*name, &shape[..], &values[..count(shape)])).collect();
            for mut adapter in [mlx(json!({}), &tensors), peft(json!({"r": 1}), &tensors)].into_iter().flatten() {
                let _ = (adapter.place(&two_layers()), adapter.update(&name), adapter.update("q.weight"));
            }
        }
    }
}
