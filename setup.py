"""What pyproject.toml cannot say: configs/ is installed as aiparsing_d2/model_zoo/configs."""

from setuptools import find_namespace_packages, find_packages, setup

CONFIGS = "aiparsing_d2.model_zoo.configs"

setup(
    packages=[
        *find_packages(include=["aiparsing_d2*"]),
        CONFIGS,
        *(
            f"{CONFIGS}.{folder}"
            for folder in find_namespace_packages("configs", exclude=["*__pycache__*"])
        ),
    ],
    package_dir={CONFIGS: "configs"},
    package_data={
        "": ["*.yaml"],
        "aiparsing_d2": ["py.typed"],
        "aiparsing_d2.model_zoo": ["weights/SHA256SUMS", "weights/*/*.safetensors"],
        "aiparsing_d2.preparation.ccp": ["*.json", "*.npz"],
    },
)
