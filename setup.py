"""Maps the folders at the top of the repository to packages under the one installed name, `offramp`."""

from setuptools import find_namespace_packages, find_packages, setup

FOLDERS = ("bandits", "environments", "models", "experiments", "conf")

packages = ["offramp"]
package_dir = {"offramp": "src/offramp"}
for folder in FOLDERS:
    packages.append(f"offramp.{folder}")
    package_dir[f"offramp.{folder}"] = folder
    packages += [f"offramp.{folder}.{inner}" for inner in find_packages(folder)]
# Config groups are folders of YAML without code.
packages += [f"offramp.conf.{group}" for group in find_namespace_packages("conf", exclude=["__pycache__"])]

setup(packages=packages, package_dir=package_dir)
