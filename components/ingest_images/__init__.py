"""The step that turns a source of pictures into checked, cropped and resized ones."""
