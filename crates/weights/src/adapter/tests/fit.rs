//! Where an adapter lands, what it must hold, and the message for one that does not fit.

use serde_json::json;

use super::*;

#[test]
fn experts_of_their_own_land_on_the_stack() {
    let expert = |number: usize, name: &str| format!("base_model.model.mlp.experts.{number}.{name}");
    let read = |number, projection: &str| {
        let (a, b) = (format!("{projection}.lora_A.weight"), format!("{projection}.lora_B.weight"));
        let tensors: [Tensor<'_>; 2] =
            [(&expert(number, &a), &[2, 2], &[1.; 4]), (&expert(number, &b), &[3, 2], &[1.; 6])];
        peft(json!({}), &tensors).unwrap()
    };
    let stack = "mlp.switch_mlp.up_proj.weight";
    let experts = base(&[(stack, &[4, 3, 2])]);
    for projection in ["up_proj", "w3"] {
        let mut adapter = read(2, projection);
        adapter.place(&experts).unwrap();
        let there: Vec<bool> = low_rank(&adapter, stack).iter().map(Option::is_some).collect();
        assert_eq!(there, [false, false, true]);
    }
    assert!(refusal(read(4, "up_proj").place(&experts)).contains("which the model does not have"));
    // A huge expert number in a name does not make a list of that length.
    assert_eq!(read(usize::MAX, "up_proj").update(stack).unwrap(), None);
    // In a model that does not stack its experts, the update lands on the expert's own weight.
    read(2, "up_proj").place(&base(&[("mlp.experts.2.up_proj.weight", &[3, 2])])).unwrap();
}

#[test]
fn transposed_factors_are_refused_with_a_hint() {
    // Rank 1, 2 columns, 3 rows: oriented as in PEFT, but in a file of mlx-lm.
    let foreign: [Tensor<'_>; 2] = [("q.lora_a", &[1, 2], &[1.; 2]), ("q.lora_b", &[3, 1], &[1.; 3])];
    let message = refusal(mlx(json!({}), &foreign));
    assert!(
        message
            .ends_with("mlx-lm keeps lora_a as [in, rank] and lora_b as [rank, out]; they look transposed"),
        "{message}"
    );
    // For a square weight, transposed factors do multiply, but the shape or the rank is wrong.
    let square: [Tensor<'_>; 2] = [("q.lora_a", &[1, 2], &[1.; 2]), ("q.lora_b", &[2, 1], &[1.; 2])];
    let message = refusal(mlx(json!({"lora_parameters": {"rank": 1, "scale": 1}}), &square));
    assert!(
        message.contains("says rank 1, but `q.lora_a` has rank 2; its factors look transposed"),
        "{message}"
    );
    let message = refusal(mlx(json!({}), &square).unwrap().place(&base(&[("q.weight", &[2, 2])])));
    assert!(
        message.ends_with("`q` updates [1, 1], but `q.weight` is [2, 2]; its factors look transposed"),
        "{message}"
    );
    // The rank is right, but rows and columns of the weight are swapped.
    let swapped: [Tensor<'_>; 2] = [("q.lora_a", &[2, 1], &[1.; 2]), ("q.lora_b", &[1, 3], &[1.; 3])];
    let message = refusal(mlx(json!({}), &swapped).unwrap().place(&base(&[("q.weight", &[2, 3])])));
    assert!(
        message.ends_with("`q` updates [3, 2], but `q.weight` is [2, 3]; its factors look swapped"),
        "{message}"
    );
}

/// An mlx-lm adapter that updates these modules of [`two_layers`].
fn updating(config: Value, modules: &[&str]) -> Adapter {
    let names: Vec<_> = modules
        .iter()
        .flat_map(|module| ["lora_a", "lora_b"].map(|part| format!("{module}.{part}")))
        .collect();
    let shapes: [(&[usize], &[f32]); 2] = [(&[2, 1], &[1.; 2]), (&[1, 3], &[1.; 3])];
    let tensors: Vec<Tensor<'_>> = names
        .iter()
        .zip(shapes.iter().cycle())
        .map(|(name, (shape, values))| (name.as_str(), *shape, *values))
        .collect();
    mlx(config, &tensors).unwrap()
}

#[test]
fn every_key_of_mlx_lm_must_be_found() {
    let config = |keys: &[&str], layers: i64| json!({"num_layers": layers, "lora_parameters": {"scale": 1.0, "keys": keys}});
    let fits = |config, modules: &[&str]| updating(config, modules).place(&two_layers());
    let last = ["model.layers.1.q_proj"];
    fits(config(&["q_proj"], 1), &last).unwrap();
    fits(json!({}), &last).unwrap();
    for all in [2, 3, 0, -1] {
        let message = refusal(fits(config(&["q_proj"], all), &last));
        assert_eq!(
            message,
            "the adapter lacks 1 of the modules that its adapter_config.json names\n  `model.layers.0.q_proj`"
        );
    }
    assert!(refusal(fits(config(&["q_proj", "k_proj"], 1), &last)).ends_with("\n  `model.layers.1.k_proj`"));
    let message = refusal(fits(config(&["q_proj", "g_proj"], 1), &last));
    assert!(
        message.ends_with("`g_proj`, which no layer of the model has; the nearest is `q_proj`"),
        "{message}"
    );
    let message = refusal(fits(config(&["q_proj", "model.embed_tokens"], 1), &last));
    assert!(message.ends_with("\n  `model.embed_tokens`"), "{message}");
    let unsaid = json!({"lora_parameters": {"scale": 1.0, "keys": ["q_proj", "k_proj"]}});
    assert!(refusal(fits(unsaid, &last)).ends_with("\n  `k_proj`, in any layer"));
}

/// A PEFT adapter that updates these modules of [`two_layers`].
fn targeting(extra: Value, modules: &[&str]) -> crate::Result<()> {
    let names: Vec<_> = modules
        .iter()
        .flat_map(|module| {
            ["lora_A", "lora_B"].map(|part| format!("base_model.model.{module}.{part}.weight"))
        })
        .collect();
    let shapes: [(&[usize], &[f32]); 2] = [(&[2, 2], &[1.; 4]), (&[3, 2], &[1.; 6])];
    let tensors: Vec<Tensor<'_>> = names
        .iter()
        .zip(shapes.iter().cycle())
        .map(|(name, (shape, values))| (name.as_str(), *shape, *values))
        .collect();
    peft(extra, &tensors)?.place(&two_layers())
}

#[test]
fn every_target_of_peft_must_be_found() {
    let both = ["model.layers.0.q_proj", "model.layers.1.q_proj"];
    targeting(json!({"target_modules": ["q_proj"]}), &both).unwrap();
    targeting(json!({"target_modules": r".*layers\.\d\.q_proj"}), &both).unwrap();
    targeting(json!({"target_modules": "all-linear"}), &both[1..]).unwrap();
    targeting(json!({"target_modules": ["q_proj"], "layers_to_transform": [1]}), &both[1..]).unwrap();
    targeting(
        json!({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"}),
        &both[1..],
    )
    .unwrap();
    targeting(json!({"target_modules": ["q_proj"], "exclude_modules": ["layers.0.q_proj"]}), &both[1..])
        .unwrap();
    for lost in [json!(["q_proj"]), json!(".*q_proj"), json!("^(?!.*vision).*q_proj")] {
        let message = refusal(targeting(json!({"target_modules": lost}), &both[1..]));
        assert!(message.ends_with("\n  `model.layers.0.q_proj`"), "{message}");
    }
    let message = refusal(targeting(json!({"target_modules": ["q_proj", "v_proj"]}), &both));
    assert!(
        message.ends_with("`v_proj` of `target_modules`; the nearest in the model is `q_proj`"),
        "{message}"
    );
    let message =
        refusal(targeting(json!({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}), &both));
    assert!(message.ends_with("\n  `embed_tokens` of `modules_to_save`"), "{message}");
    assert!(refusal(targeting(json!({"r": 4}), &both)).contains("adapter_config.json says rank 4, but `base_model.model.model.layers.0.q_proj.lora_A.weight` has rank 2"));
}

#[test]
fn what_has_no_place_is_listed_with_where_it_may_belong() {
    let message = refusal(
        updating(json!({}), &["model.layers.7.q_proj", "model.layers.1.q_proj"]).place(&two_layers()),
    );
    assert!(
        message.contains(
            "1 of 2 updates have no place; it goes up to layer 7, but `model.layers` of the model ends at 1\n"
        ),
        "{message}"
    );
    let foreign = ["language_model.model.layers.1.q_proj", "model.layers.1.k_proj"];
    assert!(
        refusal(updating(json!({}), &foreign).place(&two_layers()))
            .ends_with("; the model has `model.layers.1.q_proj.weight`, so it names its modules otherwise")
    );
    assert!(
        refusal(updating(json!({}), &["lm_head"]).place(&two_layers()))
            .ends_with("; its output head is tied to its embedding")
    );
    let many: Vec<_> = (2..9).map(|layer| format!("model.layers.{layer}.q_proj")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let message = refusal(updating(json!({}), &many).place(&two_layers()));
    assert!(message.lines().count() == 7 && message.ends_with("\n  and 2 more"), "{message}");
}

/// One way to translate the names is taken; of two, neither is.
#[test]
fn other_names_of_the_same_modules() {
    let wrapper = |list: &str| {
        base(&[
            ("language_model.lm_head.weight", &[3, 2]),
            ("language_model.model.layers.0.q_proj.weight", &[3, 2]),
            (&format!("{list}.0.q_proj.weight"), &[3, 2]),
        ])
    };
    let one = wrapper("vision_tower.blocks");
    for prefix in ["model.language_model.", "model.", ""] {
        let module = format!("{prefix}layers.0.q_proj");
        let mut adapter = updating(json!({}), &[&module, "lm_head"]);
        adapter.place(&one).unwrap();
        let said = format!(
            "the adapter's names begin with `{prefix}layers`, those of the model with `language_model.model.layers`"
        );
        assert_eq!(adapter.renaming().unwrap().to_string(), said);
        for name in ["language_model.lm_head.weight", "language_model.model.layers.0.q_proj.weight"] {
            assert!(adapter.touches(name) && adapter.update(name).unwrap().is_some(), "{name}");
        }
        assert!(!adapter.touches("vision_tower.blocks.0.q_proj.weight"));
    }
    let mut own = updating(json!({}), &["language_model.model.layers.0.q_proj"]);
    own.place(&one).unwrap();
    assert_eq!(own.renaming(), None);
    let two = wrapper("audio_tower.layers");
    assert!(
        refusal(updating(json!({}), &["model.layers.0.q_proj"]).place(&two))
            .contains("1 of 1 updates have no place")
    );
}
