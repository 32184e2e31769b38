"""A pack that holds some ids of comfyui_controlnet_aux, for tests of who answers to them."""


class Held:
    """Hands the picture on."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "stand-ins"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}, "optional": {"resolution": ("INT", {"default": 512})}}

    def execute(self, image, resolution=512):
        return (image,)


NODE_CLASS_MAPPINGS = {"Zoe-DepthMapPreprocessor": Held, "AIO_Preprocessor": Held}
NODE_DISPLAY_NAME_MAPPINGS = {"Zoe-DepthMapPreprocessor": "Zoe Depth Map"}
