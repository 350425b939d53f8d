using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

/// <summary>What was posted: its headers, its body, and whether it had a 200.</summary>
sealed record Posted(IReadOnlyDictionary<string, string> Headers, string Body, int Status) {
    public JsonElement Json => JsonElement.Parse(Body);
    public string Id => Headers["webhook-id"];
    public string Type => Json.GetProperty("type").GetString()!;
    public string Address => Json.GetProperty("data").GetProperty("address").GetString()!;
}

/// <summary>Somebody else's server, on a port of its own: it keeps what is posted, and answers as the test wants.</summary>
sealed class Endpoint : IAsyncDisposable {
    readonly WebApplication _app;
    readonly Lock _gate = new();
    readonly List<Posted> _posted = [];

    Endpoint(WebApplication app) => _app = app;

    public string Url => _app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single();
    /// <summary>Sets the status, and may write a body or wait.</summary>
    public Func<HttpContext, Task> Answer { get; set; } = _ => Task.CompletedTask;
    public IReadOnlyList<Posted> Posted { get { lock (_gate) return [.. _posted]; } }
    /// <summary>What had a 200, each once, in the order of the first time.</summary>
    public IReadOnlyList<Posted> Told => [.. Posted.Where(posted => posted.Status == 200).DistinctBy(posted => posted.Id)];

    public static Func<HttpContext, Task> Status(int status) => context => {
        context.Response.StatusCode = status;
        return Task.CompletedTask;
    };

    public static async Task<Endpoint> StartAsync(int port = 0) {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().UseUrls($"http://127.0.0.1:{port}");
        var endpoint = new Endpoint(builder.Build());
        endpoint._app.Run(endpoint.TakeAsync);
        await endpoint._app.StartAsync();
        return endpoint;
    }

    async Task TakeAsync(HttpContext context) {
        string body = await new StreamReader(context.Request.Body, Encoding.UTF8).ReadToEndAsync();
        await Answer(context);
        lock (_gate) _posted.Add(new(context.Request.Headers.ToDictionary(header => header.Key.ToLowerInvariant(), header => header.Value.ToString()),
            body, context.Response.StatusCode));
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();
}
