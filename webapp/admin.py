"""The researchers' server: a process and a port of its own, behind a login."""

import re
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from webapp.admin_access import STUDIES, AdminGuard, Parcels, Sessions, add_routes
from webapp.admin_pages import AdminPages
from webapp.database import Database
from webapp.errors import WebappError
from webapp.registry import Registry
from webapp.settings import WebappSettings

HERE = Path(__file__).parent
LARGEST_UPLOAD = "200kb"
HEAD = """<meta name="color-scheme" content="light"><meta name="robots" content="noindex">
<script>
// A press after the session has ended leads to the login; Gradio itself would say nothing.
const ask = window.fetch;
window.fetch = async (...request) => {
  const reply = await ask(...request);
  if (reply.status === 401) location.assign("/login");
  return reply;
};
</script>"""
ACCENT = "#1f566d"


def create_admin_app(database: Database) -> FastAPI:
    """The whole server over the studies of one database.

    Raises:
        WebappError: if nobody could log in.
    """
    registry = Registry(database)
    if not registry.has_researcher():
        raise WebappError(
            "no researcher has a password yet, so nobody could log in; set one with "
            "`python -m webapp password NAME`."
        )
    app = FastAPI(title="Reader studies", docs_url=None, redoc_url=None, openapi_url=None)
    sessions, parcels, css = Sessions(registry.check_password), Parcels(), colours() + own_css()
    add_routes(app, sessions, parcels, css)
    app.add_middleware(AdminGuard, sessions=sessions)
    return gr.mount_gradio_app(
        app,
        AdminPages(database, parcels, WebappSettings().readers_url).blocks(),
        path=STUDIES,
        auth_dependency=sessions.name,
        theme=calm_theme(),
        css=css,
        head=HEAD,
        max_file_size=LARGEST_UPLOAD,
        footer_links=[],
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


def colours() -> str:
    """Those of the readers' page, as CSS variables."""
    page = (HERE / "page.css").read_text(encoding="utf-8")
    return f":root {{ {' '.join(re.findall(r'--cy-[a-z]+: #[0-9a-f]+;', page))} }}\n"


def own_css() -> str:
    """Of the researchers' pages."""
    return (HERE / "admin.css").read_text(encoding="utf-8")


def calm_theme() -> gr.themes.Base:
    """Gradio's plainest theme in those colours and the machine's own fonts, light day and night."""
    shades = dict.fromkeys(("c50", "c100", "c200", "c300"), "#dde8ed")
    accent = gr.themes.Color(
        **shades, **dict.fromkeys(("c400", "c500", "c600", "c700", "c800", "c900", "c950"), ACCENT)
    )
    theme = gr.themes.Base(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue="slate",
        radius_size="sm",
        font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
        font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
    ).set(
        body_background_fill="#eef0f1",
        body_text_color="#1c2429",
        body_text_color_subdued="#4d5a62",
        button_primary_background_fill=ACCENT,
        button_primary_background_fill_hover="#17465a",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#e9f0f3",
        button_secondary_border_color="#76818a",
        button_border_width="1px",
        button_large_text_weight="500",
        button_large_text_size="15px",
        button_large_padding="7px 18px",
        block_background_fill="#ffffff",
        block_shadow="none",
        block_label_text_color="#1c2429",
        block_title_text_color="#1c2429",
        border_color_primary="#c3c9cd",
        input_background_fill="#ffffff",
        input_border_color="#76818a",
        input_border_width="1px",
        input_shadow="none",
        input_shadow_focus="none",
    )
    for name in [name for name in vars(theme) if name.endswith("_dark")]:
        setattr(theme, name, getattr(theme, name.removesuffix("_dark")))
    return theme
