"""What the verbs that look into checkpoints take as IMAGE. The one place where other kinds of it are added."""

from ocimig.criu_images.opened import ImageDirectory


def opened(image: str, within: str = "") -> ImageDirectory:
    """A directory of images, to be closed by the caller. Raises BadImage.

    An archive, or a snapshot of a store, would be recognised here and unpacked, or mounted, to a directory
    whose life ends with the value that is returned.
    """
    return ImageDirectory(image, within)
