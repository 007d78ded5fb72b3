"""Writes goldens/sam/: a tiny random Segment Anything model of transformers, and what it makes of a picture and prompts."""

import torch
from common import GOLDENS, randomise
from safetensors.torch import save_file
from transformers import SamConfig, SamModel

OUT = GOLDENS / "sam"


def model():
    vision = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=8, window_size=3,
                  global_attn_indexes=[1], output_channels=32, mlp_dim=48, num_pos_feats=16)
    prompt = dict(hidden_size=32, image_size=64, patch_size=8, image_embedding_size=8, mask_input_channels=16)
    decoder = dict(hidden_size=32, mlp_dim=24, num_hidden_layers=2, num_attention_heads=8, iou_head_hidden_dim=24)
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    config._attn_implementation = "eager"
    net = randomise(SamModel(config), 31)
    g = torch.Generator().manual_seed(32)
    for name, p in sorted(net.named_parameters()):
        if "rel_pos" in name or "pos_embed" in name or "positional_embedding" in name:
            p.data.copy_((0.5 * torch.randn(p.shape, generator=g)).half().float())
    return net


def main():
    OUT.mkdir(exist_ok=True)
    net = model()
    state = {k: v.half().contiguous() for k, v in net.state_dict().items() if not k.startswith("shared_image_embedding")}
    save_file(state, OUT / "model.safetensors")
    g = torch.Generator().manual_seed(33)
    picture = torch.randn(1, 3, 64, 64, generator=g)
    embedding = net.get_image_embeddings(picture)
    mask = torch.randn(1, 1, 32, 32, generator=g)
    points, labels = torch.tensor([[[[20.0, 30.0], [50.0, 11.0]]]]), torch.tensor([[[1, 0]]])
    box = torch.tensor([[[4.0, 8.0, 40.0, 60.0]]])
    cases = {
        "points": dict(input_points=points, input_labels=labels),
        "box": dict(input_boxes=box),
        "both": dict(input_points=points, input_labels=labels, input_boxes=box),
        "mask": dict(input_points=points, input_labels=labels, input_masks=mask),
    }
    out = {"picture": picture, "embedding": embedding, "mask": mask}
    for name, prompt in cases.items():
        whole = [net(image_embeddings=embedding, multimask_output=many, **prompt) for many in (False, True)]
        out[f"{name}.masks"] = torch.cat([w.pred_masks[0, 0] for w in whole])
        out[f"{name}.iou"] = torch.cat([w.iou_scores[0, 0] for w in whole])
    save_file({k: v.contiguous() for k, v in out.items()}, OUT / "outputs.safetensors")


if __name__ == "__main__":
    main()
