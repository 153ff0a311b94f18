"""Bodies from timm in place of the models' ResNet-50."""

from detectron2.config import LazyCall as L

from aiparsing_d2.modeling.backbone import TimmBackbone, timm_pixel_mean, timm_pixel_std


def use_timm_body(model, dataloader, model_name, freeze_at=0, **timm_options):
    """Sets the body, the input normalisation that its weights were trained with, and RGB images.

    What follows from the body's name is computed from it when the model is built, so that the name
    can be overridden alone.
    """
    model.backbone.bottom_up = L(TimmBackbone)(
        model_name=model_name,
        out_features="${..in_features}",
        freeze_at=freeze_at,
        freeze_norms=True,
        **timm_options,
    )
    model.pixel_mean = L(timm_pixel_mean)(model_name="${..backbone.bottom_up.model_name}")
    model.pixel_std = L(timm_pixel_std)(model_name="${..backbone.bottom_up.model_name}")
    model.input_format = "RGB"
    # The test mapper reads what this one reads.
    dataloader.train.mapper.image_format = "RGB"
